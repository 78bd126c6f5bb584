"""Keep one of each picture, and none that an evaluation set holds.

A pair that overlaps an evaluation set is dropped first and takes no further part. Of the others, of
each address, then each content, then each pixels one pair stays; last, in order of preference, a
picture nearly the same as one that stays is dropped for it. In bounded memory:

1. evaluation: hash the pictures of each evaluation set that has no index;
2. embed: where a model is named, embed the pictures of each part;
3. compare: find overlaps per part, and route what deduplication carries of a pair;
4. earlier: mark what an earlier run kept;
5. url, image_sha256, pixel_hash: keep one per value, each bucket by itself, and route by the next;
6. near: blocks in order of preference, each against what stays of those before it, then itself;
7. follow: from each dropped pair to one that stays;
8. limits: which further captions of a picture stay, and which pairs of a caption are too many;
9. dedup: write the parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from dedup.caption_limits import Candidates, Known, Limits, limit_captions, read_places
from dedup.decisions import Findings, decide
from dedup.earlier import manifest_of, mark_earlier, open_earlier
from dedup.evaluation.evalsets import EvalSet, files_of, read_evalsets
from dedup.exact import READ, bucket_of, digests, keep_one_of_each, read_rows
from dedup.links import LINKS, follow_all
from pipeline import schemas
from pipeline.errors import ConfigError
from pipeline.runtime import storage
from pipeline.runtime.buckets import PLACES, read_bucket, write_buckets, write_whole
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import Manifest, Outcome, Part
from pipeline.runtime.settings import Settings
from pipeline.runtime.stage import StageRun, TaskOutput, begin
from pipeline.runtime.workspace import Workspace

REASONS = {
    "evaluation_overlap": "the picture is, or nearly is, one of an evaluation set",
    "evaluation_caption": "the caption repeats one of an evaluation set",
    "same_url": "another pair with the same address was preferred",
    "same_bytes": "a pair whose picture has the same bytes was preferred",
    "same_pixels": "a pair whose picture has the same pixels was preferred",
    "near_duplicate": "a pair whose picture is nearly the same was preferred",
    "similar": "a pair whose picture has a similar embedding was preferred",
    "same_caption": "enough pairs with the same caption were preferred",
}

COMPARED: Final = [name for name in schemas.DOWNLOADED.names if name in READ]
# Rows that one task of an exact test holds; the stage's processes take 0.9 GB with it.
BUCKET_ROWS: Final = 1 << 20


class DedupConfig(Settings):
    """Keep one of each picture, and none that an evaluation set holds."""

    max_distance: int = Field(31, ge=0, le=63)
    """differing PDQ bits, of 256, up to which two pictures count as the same"""
    min_quality: int = Field(50, ge=0, le=100)
    """PDQ quality below which a picture is compared by address, bytes and pixels alone"""
    captions_per_picture: int = Field(1, ge=1)
    """pairs of one picture that may stay, if their captions differ"""
    max_per_caption: int = Field(0, ge=0)
    """pairs that may have the same caption but for case, spacing and numbers; 0 for any number"""
    caption_characters: int = Field(300, ge=1)
    """up to here a longer caption is preferred, beyond a shorter one"""
    earlier: str = ""
    """workspace of an earlier run, whose pairs are preferred to all others"""
    evalsets: str = ""
    """TOML file that names evaluation sets; corpus pictures that overlap them are dropped"""
    drop_overlaps: bool = True
    """drop the pictures that overlap an evaluation set, instead of reporting them alone"""
    text_overlap: Literal["ignore", "report", "drop"] = "report"
    """what to do with captions that repeat those of an evaluation set"""
    embeddings: str = ""
    """model whose embeddings are compared, too: efficientnet-lite0, a .onnx or TorchScript file, or a checkpoint"""
    min_similarity: float | None = Field(None, gt=0, le=1)
    """cosine of embeddings from which two pictures of the corpus count as the same; none by default"""
    confirm_similarity: float | None = Field(None, gt=-1, le=1)
    """cosine of embeddings below which pictures near by PDQ do not count as the same; none by default"""

    @model_validator(mode="after")
    def _similarities_of_a_model(self) -> Self:
        asked = self.min_similarity is not None or self.confirm_similarity is not None
        if asked and not self.embeddings:
            raise ConfigError(
                "dedup.min_similarity and dedup.confirm_similarity compare embeddings; set "
                "dedup.embeddings, to efficientnet-lite0 for one"
            )
        return self


@dataclass(frozen=True, kw_only=True)
class EmbedTask:
    """One part whose pictures to embed."""

    part: Part
    output: TaskOutput
    model: str


@dataclass(frozen=True, kw_only=True)
class CompareTask:
    """One part to compare with the evaluation sets and to write as rows in buckets.

    Attributes:
        overlaps, outside, rows: files to write: FOUND, the PLACES that are dropped for it, and ROWS of
            the other pairs in buckets by pair id, or else by url.
    """

    part: Part
    index: int
    output: TaskOutput
    config: DedupConfig
    evaluation: tuple[str, ...]
    evalsets: tuple[EvalSet, ...]
    embeddings: Part | None
    buckets: int
    overlaps: str
    outside: str
    rows: str


@dataclass(frozen=True, kw_only=True)
class ApplyTask:
    """One part to write without what overlaps and what was dropped for another pair."""

    part: Part
    index: int
    output: TaskOutput
    config: DedupConfig
    overlaps: str
    links: tuple[str, ...]
    limits: Limits


def run(config: DedupConfig, workspace: Workspace, executor: Executor) -> Manifest:
    """Keep evaluation pictures out of the downloaded pairs, then deduplicate the others.

    Raises:
        ConfigError: if the file of evaluation sets or the model is not as it should be.
        InputError: if a set holds no pictures or cannot be opened.
        MissingInput: if `download` has not finished, or the earlier run's `dedup`.
        TaskFailed: if a part cannot be read or a set cannot be hashed.
    """
    # numba takes a second to import, image codecs are an extra: neither is for `witmill --help`.
    from dedup import clusters
    from dedup.alike import Alike
    from dedup.evaluation import evalset_index

    evalsets = read_evalsets(config.evalsets) if config.evalsets else ()
    earlier = open_earlier(config.earlier, workspace) if config.earlier else None
    # Before `begin`, which deletes what an earlier run with other settings made.
    files = _outside_files(config, evalsets, earlier)
    stage = begin("dedup", config, workspace, reads=["download"], files=files)
    if stage.done:
        return stage.done
    parts = len(stage.parts("download"))
    buckets = 1 + sum(part.rows for part in stage.parts("download")) // BUCKET_ROWS
    evaluation, hashed = evalset_index.evaluation_files(
        stage, executor, config.evalsets, evalsets, model=config.embeddings
    )
    embedded = _embed(stage, executor, config)
    embeddings = [part for outcome in embedded for part in outcome.parts["embeddings"]]
    comparing = _compare_tasks(stage, config, evaluation, evalsets, embeddings, buckets)
    stage.map(executor, "compare", compare_part, comparing)
    rows, kept_earlier = [task.rows for task in comparing], list[str]()
    if earlier:
        rows, kept_earlier = mark_earlier(
            stage, executor, earlier, rows, buckets=buckets, parts=parts
        )
    alike = Alike(
        max_distance=config.max_distance,
        min_similarity=config.min_similarity,
        confirm_similarity=config.confirm_similarity,
    )
    distinct = keep_one_of_each(
        stage, executor, rows, buckets=buckets, parts=parts, every=clusters.sample_every(alike)
    )
    near = clusters.thin_out(
        stage, executor, distinct, alike, embeddings=embeddings, buckets=buckets
    )
    links = follow_all(stage, executor, [*distinct.links, *near], buckets, parts=parts)
    known = Known(links=links, earlier=tuple(kept_earlier))
    limits = _limit_captions(stage, executor, comparing, known, config, buckets)
    applying = [
        ApplyTask(
            part=task.part,
            index=task.index,
            output=task.output,
            config=config,
            overlaps=task.overlaps,
            links=links,
            limits=limits,
        )
        for task in comparing
    ]
    return stage.finish([*hashed, *embedded, *stage.map(executor, "dedup", apply_part, applying)])


def _outside_files(
    config: DedupConfig, evalsets: Sequence[EvalSet], earlier: Workspace | None
) -> dict[str, str]:
    """Make sure that all can be opened, and return what the stage depends on beside `download`."""
    files = files_of(config.evalsets, evalsets) if evalsets else {}
    if config.embeddings:
        from dedup.embedding.embedding_models import check_model, model_files

        check_model(config.embeddings)
        files |= model_files(config.embeddings)
    elif by_embedding := [e.name for e in evalsets if e.min_similarity is not None]:
        raise ConfigError(
            f"{config.evalsets} sets min_similarity for {', '.join(by_embedding)}, which compares "
            "embeddings; set dedup.embeddings, to efficientnet-lite0 for one"
        )
    return {**files, "earlier run": manifest_of(earlier)} if earlier else files


def _embed(stage: StageRun, executor: Executor, config: DedupConfig) -> list[Outcome]:
    if not config.embeddings:
        return []
    tasks = [
        EmbedTask(part=part, output=stage.output(i), model=config.embeddings)
        for i, part in enumerate(stage.parts("download"))
    ]
    # The rows are counted once, where they are kept or dropped.
    return [replace(o, rows_in=0) for o in stage.map(executor, "embed", embed_part, tasks)]


def _compare_tasks(
    stage: StageRun,
    config: DedupConfig,
    evaluation: tuple[str, ...],
    evalsets: tuple[EvalSet, ...],
    embeddings: Sequence[Part],
    buckets: int,
) -> list[CompareTask]:
    folder = stage.scratch("compared")
    return [
        CompareTask(
            part=part,
            index=i,
            output=stage.output(i),
            config=config,
            evaluation=evaluation,
            evalsets=evalsets,
            embeddings=embeddings[i] if embeddings else None,
            buckets=buckets,
            overlaps=storage.join(folder, f"{i:05d}.overlaps"),
            outside=storage.join(folder, f"{i:05d}.outside"),
            rows=storage.join(folder, f"{i:05d}.rows"),
        )
        for i, part in enumerate(stage.parts("download"))
    ]


def _limit_captions(
    stage: StageRun,
    executor: Executor,
    comparing: Sequence[CompareTask],
    known: Known,
    config: DedupConfig,
    buckets: int,
) -> Limits:
    candidates = [
        Candidates(part=task.part, index=task.index, output=task.output, outside=task.outside)
        for task in comparing
    ]
    return limit_captions(
        stage,
        executor,
        candidates,
        known,
        per_picture=config.captions_per_picture,
        per_caption=config.max_per_caption,
        caption_characters=config.caption_characters,
        buckets=buckets,
    )


def compare_part(task: CompareTask) -> Outcome:
    """Find one part's overlaps and route the rows of its other pairs; runs in a worker."""
    config = task.config
    pairs = task.output.read(task.part, schemas.DOWNLOADED, COMPARED)
    overlaps = _overlaps(task, pairs)
    outside = np.unique(overlaps.column("row").to_numpy()[is_out(overlaps, config)])
    rows = read_rows(
        pairs,
        part=task.index,
        min_quality=config.min_quality,
        caption_characters=config.caption_characters,
    )
    is_inside = np.ones(pairs.num_rows, np.bool_)
    is_inside[outside] = False
    write_whole(task.overlaps, overlaps)
    write_whole(task.outside, rows.take(pa.array(outside)).select(PLACES.names))
    rows = rows.filter(pa.array(is_inside))
    digest = digests(rows.column("pair_id")) if config.earlier else rows.column("url")
    write_buckets(task.rows, rows, bucket_of(digest, task.buckets), task.buckets)
    return Outcome(rows_in=pairs.num_rows, rows_out=rows.num_rows)


def _overlaps(task: CompareTask, pairs: pa.Table) -> pa.Table:
    """Return FOUND, by picture and by caption."""
    from dedup.evaluation.decontaminate import FOUND, find_overlaps, load_evaluation

    if not task.evaluation:
        return FOUND.empty_table()
    vectors = None
    if task.embeddings is not None:
        from dedup.embedding.embeddings import read_embeddings

        vectors = partial(read_embeddings, task.output.workspace, task.embeddings)
    found = find_overlaps(
        pairs,
        load_evaluation(task.evaluation, task.evalsets),
        min_quality=task.config.min_quality,
        embeddings=vectors,
    )
    if task.config.text_overlap == "ignore":
        return found
    # Its loops take seconds to load.
    from dedup.evaluation.text_overlap import find_caption_overlaps, load_captions

    captions = load_captions(task.evaluation, task.evalsets)
    repeated = find_caption_overlaps(pairs.column("caption"), captions)
    return pa.concat_tables([found, repeated]).sort_by([("row", "ascending")])


def is_out(overlaps: pa.Table, config: DedupConfig) -> npt.NDArray[np.bool_]:
    """Return for each of FOUND whether its pair is dropped for it."""
    by_caption = np.asarray(pc.equal(overlaps.column("method"), "caption"), np.bool_)
    return np.where(by_caption, config.text_overlap == "drop", config.drop_overlaps)


def embed_part(task: EmbedTask) -> Outcome:
    """Embed the pictures of one part; runs in a worker."""
    from dedup.embedding.embedding_models import loaded_model
    from dedup.embedding.embeddings import STORED, write_embeddings

    names = [name for name in schemas.DOWNLOADED.names if name in STORED]
    pairs = task.output.read(task.part, schemas.DOWNLOADED, names)
    written = write_embeddings(task.output, pairs, loaded_model(task.model))
    return Outcome(rows_in=pairs.num_rows, parts={"embeddings": [written]})


def apply_part(task: ApplyTask) -> Outcome:
    """Write one part without what is dropped; runs in a worker."""
    from dedup.evaluation.decontaminate import FOUND

    pairs = task.output.read(task.part, schemas.DOWNLOADED)
    overlaps = read_bucket([task.overlaps], 0, FOUND)
    limits = task.limits
    over = read_places(limits.over, task.index)
    in_part = read_places(limits.over_in_part[task.index : task.index + 1], 0)
    findings = Findings(
        overlaps=overlaps,
        is_out=is_out(overlaps, task.config),
        links=read_bucket(task.links, task.index, LINKS),
        spared=read_places(limits.spared, task.index),
        over=np.concatenate([over, in_part]),
    )
    decided = decide(pairs, findings)
    return task.output.write(
        rows_in=pairs.num_rows,
        kept=decided.kept,
        schema=schemas.DEDUPLICATED,
        drops=decided.drops,
        side={
            "duplicates": (decided.duplicates, schemas.DUPLICATES),
            "eval_overlaps": (decided.eval_overlaps, schemas.EVAL_OVERLAPS),
        },
    )
