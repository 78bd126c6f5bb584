"""Drop captions that describe no image: file names, placeholders, keyword lists, codes, markup.

Rules are tried in order and a drop names the first that applied. Boilerplate, the last, is what one
site says of many images: it needs counts over all parts, so captions are judged, counted, then
written.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import schemas
from pipeline.caption_text import boilerplate
from pipeline.caption_text.rules import (
    BOILERPLATE,
    REASONS,
    RULES,
    Captions,
    CaptionsConfig,
    mask_contacts,
)
from pipeline.errors import ConfigError
from pipeline.runtime import storage
from pipeline.runtime.drops import drop_rows
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import Manifest, Outcome, Part
from pipeline.runtime.stage import StageRun, TaskOutput, begin
from pipeline.runtime.workspace import Workspace

__all__ = ["REASONS", "CaptionsConfig", "explain", "judge", "judge_table", "run"]

_DETAIL_CHARACTERS = 120
_VERDICTS = pa.schema([("verdict", pa.int8()), ("key", pa.uint64())])
_KEPT = -1
_CODES = {reason: code for code, reason in enumerate(REASONS)}


@dataclass(frozen=True, kw_only=True)
class PartTask:
    """One part to judge and to write."""

    part: Part
    config: CaptionsConfig
    output: TaskOutput


@dataclass(frozen=True, kw_only=True)
class JudgeTask:
    """One part to judge, its captions to be counted for `partitions`; files begin with `path`."""

    part: Part
    config: CaptionsConfig
    partitions: int
    path: str
    output: TaskOutput


@dataclass(frozen=True, kw_only=True)
class CountTask:
    """One partition of sites and captions to look for boilerplate in."""

    counts: tuple[str, ...]
    partition: int
    least: int
    path: str


@dataclass(frozen=True, kw_only=True)
class WriteTask:
    """One judged part to be written, without its boilerplate."""

    part: Part
    verdicts: str
    boilerplate: tuple[str, ...]
    config: CaptionsConfig
    output: TaskOutput


def run(config: CaptionsConfig, workspace: Workspace, executor: Executor) -> Manifest:
    """Judge every caption that has the right language and return the manifest.

    Raises:
        ConfigError: if a rule to disable is unknown.
        MissingInput: if `language` has not finished.
        TaskFailed: if a part cannot be judged.
    """
    _check_disabled(config)
    stage = begin("captions", config, workspace, reads=["language"])
    if stage.done:
        return stage.done
    parts = stage.parts("language")
    if BOILERPLATE in config.disabled:
        tasks = [
            PartTask(part=part, config=config, output=stage.output(i))
            for i, part in enumerate(parts)
        ]
        return stage.finish(stage.map(executor, "captions", judge_part, tasks))
    return stage.finish(_judge_and_count(stage, executor, config, parts))


def _check_disabled(config: CaptionsConfig) -> None:
    unknown = [reason for reason in config.disabled if reason not in REASONS]
    if unknown:
        raise ConfigError(
            f"captions.disabled names {', '.join(unknown)}, expected among: {', '.join(REASONS)}"
        )


def _judge_and_count(
    stage: StageRun, executor: Executor, config: CaptionsConfig, parts: list[Part]
) -> list[Outcome]:
    folder = stage.scratch("judged")
    partitions = boilerplate.count_partitions(sum(part.rows for part in parts))
    judged = stage.map(
        executor,
        "judge",
        count_part,
        [
            JudgeTask(
                part=part,
                config=config,
                partitions=partitions,
                path=f"{folder}/{i:05d}",
                output=stage.output(i),
            )
            for i, part in enumerate(parts)
        ],
    )
    counts = tuple(outcome.parts["counts"][0].path for outcome in judged)
    counting = [
        CountTask(
            counts=counts,
            partition=i,
            least=config.boilerplate_urls,
            path=f"{folder}/boilerplate-{i:05d}.arrow",
        )
        for i in range(partitions)
    ]
    found = stage.map(executor, "count", find_partition, counting)
    keys = tuple(outcome.parts["keys"][0].path for outcome in found)
    tasks = [
        WriteTask(
            part=part,
            verdicts=outcome.parts["verdicts"][0].path,
            boilerplate=keys,
            config=config,
            output=stage.output(i),
        )
        for i, (part, outcome) in enumerate(zip(parts, judged, strict=True))
    ]
    return stage.map(executor, "write", write_part, tasks)


def judge_part(task: PartTask) -> Outcome:
    """Read, judge and write one part; runs in a worker."""
    pairs = task.output.read(task.part, schemas.LANGUAGES)
    return _write(task.output, pairs, *judge_table(pairs, task.config))


def count_part(task: JudgeTask) -> Outcome:
    """Judge one part, and count the captions of each site that no rule meets; runs in a worker."""
    columns = ["url", "page_url", "caption"]
    pairs = task.output.read(task.part, schemas.LANGUAGES, columns)
    verdicts = _verdicts(_captions(pairs, task.config), task.config)
    keys = boilerplate.site_keys(pairs)
    table = pa.table([verdicts, keys], schema=_VERDICTS)
    path = f"{task.path}-verdicts.parquet"
    with storage.atomic_output(path) as file:
        pq.write_table(table, file, compression="zstd")
    counts = boilerplate.write_counts(
        f"{task.path}-counts.arrow", keys[verdicts == _KEPT], task.partitions
    )
    part = Part(path=path, rows=len(table), bytes=file.size, sha256=file.sha256)
    return Outcome(
        rows_in=len(pairs), rows_out=len(pairs), parts={"verdicts": [part], "counts": [counts]}
    )


def find_partition(task: CountTask) -> Outcome:
    """List the boilerplate of one partition; runs in a worker."""
    keys = boilerplate.find_boilerplate(task.counts, task.partition, task.least)
    part = boilerplate.write_keys(task.path, keys)
    return Outcome(rows_in=0, rows_out=0, parts={"keys": [part]})


def write_part(task: WriteTask) -> Outcome:
    """Write one judged part without its boilerplate; runs in a worker."""
    pairs = task.output.read(task.part, schemas.LANGUAGES)
    with storage.open_input(task.verdicts) as file:
        judged = pq.read_table(file, schema=_VERDICTS)
    verdicts = judged.column("verdict").to_numpy().copy()
    kept = verdicts == _KEPT
    keys = judged.column("key").to_numpy()[kept]
    is_boilerplate = boilerplate.is_boilerplate(keys, task.boilerplate)
    verdicts[np.flatnonzero(kept)[is_boilerplate]] = _CODES[BOILERPLATE]
    captions = _captions(pairs, task.config)
    return _write(task.output, pairs, *_part_with(pairs, captions, _reasons(verdicts)))


def _write(output: TaskOutput, pairs: pa.Table, kept: pa.Table, drops: pa.Table) -> Outcome:
    return output.write(rows_in=len(pairs), kept=kept, schema=schemas.CAPTIONS, drops=drops)


def judge_table(pairs: pa.Table, config: CaptionsConfig) -> tuple[pa.Table, pa.Table]:
    """Return the rows of `pairs` whose caption no rule meets, and the others as DROPS.

    Where contacts are masked, rows have the masked caption, and it is that one which is judged.
    """
    captions = _captions(pairs, config)
    return _part_with(pairs, captions, judge(captions, config))


def _captions(pairs: pa.Table, config: CaptionsConfig) -> pa.Array:
    captions = pairs.column("caption").combine_chunks()
    return mask_contacts(captions) if config.contacts == "mask" else captions


def _part_with(pairs: pa.Table, captions: pa.Array, reasons: pa.Array) -> tuple[pa.Table, pa.Table]:
    bad = pc.is_valid(reasons)
    seen = pc.utf8_slice_codeunits(captions.filter(bad), 0, _DETAIL_CHARACTERS)
    drops = drop_rows(pairs.column("pair_id").filter(bad), reasons.filter(bad), seen)
    place = pairs.schema.get_field_index("caption")
    judged = pairs.set_column(place, pairs.schema.field(place), captions)
    return judged.filter(pc.invert(bad)), drops


def judge(captions: pa.Array, config: CaptionsConfig) -> pa.Array:
    """Return for each caption the reason to drop it, the first that applies, or null to keep it."""
    return _reasons(_verdicts(captions, config))


def _verdicts(texts: pa.Array, config: CaptionsConfig) -> npt.NDArray[np.int8]:
    captions = Captions(texts)
    verdicts = np.full(len(texts), _KEPT, np.int8)
    for rule in reversed(RULES):
        if rule.reason not in config.disabled:
            verdicts[rule.applies(captions, config)] = _CODES[rule.reason]
    return verdicts


def _reasons(verdicts: npt.NDArray[np.int8]) -> pa.Array:
    names = pa.array(list(REASONS), pa.string())
    return names.take(pa.array(verdicts, mask=verdicts == _KEPT))


def explain(config: CaptionsConfig, caption: str) -> str:
    """Return what each rule sees in `caption`, what it allows, and the verdict, as lines of text."""
    _check_disabled(config)
    pairs = pa.table({"caption": pa.array([caption], pa.string())})
    texts = _captions(pairs, config)
    captions = Captions(texts)
    rows = [("rule", "measured", "allowed", "verdict")]
    reason = None
    for rule in RULES:
        verdict = "off"
        if rule.reason not in config.disabled:
            drops = bool(rule.applies(captions, config)[0])
            verdict = "drop" if drops else "pass"
            reason = reason or (rule.reason if drops else None)
        rows.append((rule.reason, rule.measured(captions), rule.allowed(config), verdict))
    verdict = "off" if BOILERPLATE in config.disabled else "open"
    limit = f"fewer than {config.boilerplate_urls} images"
    rows.append((BOILERPLATE, "known of whole crawls only", limit, verdict))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    end = f"dropped: {reason}" if reason else "kept"
    return "\n".join([f"{end}: {texts[0].as_py()!r}", "", *lines])
