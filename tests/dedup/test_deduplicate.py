import hashlib
import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from dedup import clusters, deduplicate
from dedup.deduplicate import DedupConfig, run
from pipeline import schemas
from pipeline.errors import ConfigError, InputError, MissingInput
from pipeline.runtime.executor import Executor, InlineExecutor
from pipeline.runtime.manifest import Manifest
from pipeline.runtime.workspace import Workspace
from tests.dedup.evaluation.test_decontaminate import encode, evalset, scene
from tests.reference import neighbours
from tests.reference.neighbours import Pair

Finish = Callable[..., Manifest]


def some_pairs(count: int, seed: int) -> list[Pair]:
    """Return pairs among which every kind of duplicate, and chains of them, are common."""
    rng = random.Random(seed)
    centres = [rng.getrandbits(256) for _ in range(1 + count // 3)]
    pairs: list[Pair] = []
    for i in range(count):
        hashed = rng.choice(centres)
        for bit in rng.sample(range(256), rng.randrange(30)):
            hashed ^= 1 << bit
        pixels = f"pixels {i}"
        fresh = Pair(
            pair_id=hashlib.md5(f"{seed} {i}".encode()).hexdigest(),
            url=f"http://example.org/{rng.randrange(3 * count)}",
            sha256=f"bytes {i}",
            pixels=pixels,
            pdq=hashed.to_bytes(32, "big") if rng.random() < 0.9 else None,
            width=rng.choice([100, 200]),
            height=rng.choice([100, 200]),
            caption="x" * rng.randrange(1, 4),
        )
        if pairs and rng.random() < 0.3:
            other = rng.choice(pairs)
            same_bytes = {"sha256": other.sha256} if rng.random() < 0.5 else {}
            fresh = replace(fresh, pixels=other.pixels, pdq=other.pdq, **same_bytes)
        pairs.append(fresh)
    return pairs


def downloaded(pairs: Sequence[Pair]) -> pa.Table:
    values = {
        "caption_source": "alt", "source": "crawl.warc", "source_offset": 0, "query_ids": [1],
        "language": "en", "language_probability": 1.0, "selected_by": [1], "image_bytes": 10,
        "image_format": "jpeg", "image_file": "download/images/00000.tar", "image_offset": 0,
        "image_length": 10,
    }  # fmt: skip
    rows = [
        {
            **values,
            "pair_id": pair.pair_id,
            "url": pair.url,
            "caption": pair.caption,
            "image_sha256": pair.sha256,
            "width": pair.width,
            "height": pair.height,
            "pixel_hash": pair.pixels,
            "pdq": pair.pdq or bytes(32),
            "pdq_quality": 100 if pair.pdq else 0,
        }
        for pair in pairs
    ]
    return pa.Table.from_pylist(rows, schemas.DOWNLOADED)


def cut(pairs: Sequence[Pair], parts: int) -> list[pa.Table]:
    return [downloaded(pairs[i::parts]) for i in range(parts)]


def read(workspace: Workspace, table: str, schema: pa.Schema) -> list[dict[str, object]]:
    return workspace.read_table("dedup", table, schema).to_pylist()


def verdicts(workspace: Workspace) -> dict[str, tuple[str, str, float]]:
    rows = read(workspace, "duplicates", schemas.DUPLICATES)
    return {str(r["pair_id"]): (r["duplicate_of"], r["method"], r["distance"]) for r in rows}  # type: ignore[misc]


def expected_verdicts(pairs: Sequence[Pair], radius: int = 31) -> dict[str, tuple[str, str, float]]:
    found = neighbours.deduplicate(pairs, radius)
    return {k: (v.duplicate_of, v.method, v.distance) for k, v in found.items()}


def kept(workspace: Workspace) -> set[str]:
    return {str(r["pair_id"]) for r in read(workspace, "main", schemas.DEDUPLICATED)}


def small_blocks(patch: pytest.MonkeyPatch, *, bucket: int, block: int) -> None:
    patch.setattr(deduplicate, "BUCKET_ROWS", bucket)
    patch.setattr(clusters, "BLOCK_ROWS", block)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("radius", [0, 12, 31])
def test_the_stage_decides_as_comparing_every_pair_does(
    workspace: Workspace,
    finish_stage: Finish,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    radius: int,
) -> None:
    pairs = some_pairs(60, seed)
    finish_stage("download", schemas.DOWNLOADED, *cut(pairs, 1 + seed % 3))
    small_blocks(monkeypatch, bucket=(1000, 25)[seed % 2], block=(1000, 7)[seed % 2])
    run(DedupConfig(max_distance=radius), workspace, InlineExecutor())
    assert verdicts(workspace) == expected_verdicts(pairs, radius)
    assert kept(workspace) == {p.pair_id for p in pairs} - set(verdicts(workspace))


def test_parts_buckets_blocks_and_executors_change_nothing(
    workspace: Workspace, finish_stage: Finish, monkeypatch: pytest.MonkeyPatch, executor: Executor
) -> None:
    pairs = some_pairs(80, 99)
    finish_stage("download", schemas.DOWNLOADED, *cut(pairs, 4))
    small_blocks(monkeypatch, bucket=50, block=30)
    manifest = run(DedupConfig(), workspace, executor)
    assert verdicts(workspace) == expected_verdicts(pairs)
    assert manifest.rows_in == 80
    assert manifest.rows_out == len(kept(workspace))
    assert set(manifest.drops) == {"same_url", "same_bytes", "same_pixels", "near_duplicate"}


def test_two_runs_write_the_same_bytes(
    tmp_path: Path, finish_stage: Finish, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish_stage("download", schemas.DOWNLOADED, *cut(some_pairs(60, 3), 2))
    first = run(DedupConfig(), workspace, InlineExecutor()).tables
    shutil.rmtree(workspace.path("dedup"))
    small_blocks(monkeypatch, bucket=20, block=10)
    assert run(DedupConfig(), workspace, InlineExecutor()).tables == first


def test_nothing_intermediate_is_left(workspace: Workspace, finish_stage: Finish) -> None:
    finish_stage("download", schemas.DOWNLOADED, *cut(some_pairs(30, 1), 2))
    run(DedupConfig(), workspace, InlineExecutor())
    left = {p.name for p in Path(workspace.path("dedup")).iterdir()}
    assert left == {"00000.parquet", "00001.parquet", "drops", "duplicates", "manifest.json"}


def test_no_pairs_and_no_parts_are_fine(workspace: Workspace, finish_stage: Finish) -> None:
    finish_stage("download", schemas.DOWNLOADED, schemas.DOWNLOADED.empty_table())
    assert run(DedupConfig(), workspace, InlineExecutor()).rows_out == 0
    finish_stage("download", schemas.DOWNLOADED, made_by="again")
    assert run(DedupConfig(), workspace, InlineExecutor()).rows_out == 0


A = Pair(
    pair_id="a" * 32, url="http://a/", sha256="a", pixels="a", pdq=bytes(32), width=200, height=100,
    caption="long caption",
)  # fmt: skip


@pytest.mark.parametrize(
    "better",
    [
        {"width": 201, "caption": "short"},
        {"caption": "long caption!"},
        {"pair_id": "9" * 32},
    ],
)
def test_the_larger_then_the_longer_then_the_smaller_id_stays(
    workspace: Workspace, finish_stage: Finish, better: dict[str, object]
) -> None:
    worse = replace(A, url="http://b/", sha256="b")
    preferred = replace(A, **{"pair_id": "c" * 32, **better})  # type: ignore[arg-type]
    finish_stage("download", schemas.DOWNLOADED, downloaded([worse, preferred]))
    run(DedupConfig(), workspace, InlineExecutor())
    assert kept(workspace) == {preferred.pair_id}


def test_captions_are_measured_in_characters(workspace: Workspace, finish_stage: Finish) -> None:
    thai = replace(A, pair_id="1" * 32, caption="แมว")
    latin = replace(A, pair_id="2" * 32, caption="chat", url="http://b/")
    finish_stage("download", schemas.DOWNLOADED, downloaded([thai, latin]))
    run(DedupConfig(), workspace, InlineExecutor())
    assert kept(workspace) == {latin.pair_id}


def test_pictures_below_the_quality_floor_are_compared_by_exact_tests_only(
    workspace: Workspace, finish_stage: Finish
) -> None:
    flat = [replace(A, pair_id=c * 32, url=c, sha256=c, pixels=p) for c, p in ("1x", "2x", "3y")]
    table = downloaded(flat)
    quality = table.schema.get_field_index("pdq_quality")
    table = table.set_column(
        quality, table.schema.field(quality), pa.array([49, 49, 49], pa.int32())
    )
    finish_stage("download", schemas.DOWNLOADED, table)
    run(DedupConfig(), workspace, InlineExecutor())
    assert kept(workspace) == {"1" * 32, "3" * 32}
    run(DedupConfig(min_quality=49), workspace, InlineExecutor())
    assert kept(workspace) == {"1" * 32}


def evaluation(tmp_path: Path, data: bytes) -> str:
    evalset(tmp_path, {"a/1.png": data})
    (tmp_path / "sets.toml").write_text('[scenes]\npath = "set.zip"\n', encoding="utf-8")
    return str(tmp_path / "sets.toml")


def test_an_overlapping_pair_is_dropped_first_and_stands_for_no_other(
    workspace: Workspace, finish_stage: Finish, tmp_path: Path, executor: Executor
) -> None:
    png = encode(scene(1), "PNG")
    # The largest of three: it would be the one to stay, were it not in the evaluation set.
    shown = replace(A, width=999, sha256=hashlib.sha256(png).hexdigest(), pdq=None)
    others = [replace(A, pair_id=c * 32, url=shown.url, sha256=c, pixels=c, pdq=None) for c in "bc"]
    finish_stage("download", schemas.DOWNLOADED, downloaded([*others, shown]))
    manifest = run(DedupConfig(evalsets=evaluation(tmp_path, png)), workspace, executor)
    assert kept(workspace) == {"b" * 32}
    assert verdicts(workspace) == {"c" * 32: ("b" * 32, "same_url", 0)}
    assert read(workspace, "eval_overlaps", schemas.EVAL_OVERLAPS) == [
        {
            "pair_id": "a" * 32,
            "evalset": "scenes",
            "split": "",
            "item": "a/1.png",
            "method": "same_bytes",
            "distance": 0,
        }
    ]
    assert read(workspace, "drops", schemas.DROPS) == [
        {"pair_id": "c" * 32, "reason": "same_url", "detail": "b" * 32},
        {"pair_id": "a" * 32, "reason": "evaluation_overlap", "detail": "scenes/a/1.png"},
    ]
    assert manifest.counters["evaluation_pictures"] == 1


def test_overlaps_may_be_reported_alone(
    workspace: Workspace, finish_stage: Finish, tmp_path: Path
) -> None:
    png = encode(scene(1), "PNG")
    shown = replace(A, sha256=hashlib.sha256(png).hexdigest())
    smaller = replace(shown, pair_id="b" * 32, url="http://b/", width=10)
    finish_stage("download", schemas.DOWNLOADED, downloaded([shown, smaller]))
    config = DedupConfig(evalsets=evaluation(tmp_path, png), drop_overlaps=False)
    manifest = run(config, workspace, InlineExecutor())
    # They take part in all that follows.
    assert manifest.drops == {"same_bytes": 1}
    overlaps = read(workspace, "eval_overlaps", schemas.EVAL_OVERLAPS)
    assert {r["pair_id"] for r in overlaps} == {shown.pair_id, smaller.pair_id}


CAPTION = "Two brown dogs are running through the shallow water of a wide river."


def captioned_sets(tmp_path: Path) -> str:
    """Return a file of one set of captions, as COCO's are written."""
    pictures = [{"id": 7, "file_name": "7.jpg"}]
    captions = [{"id": 1, "image_id": 7, "caption": CAPTION}]
    coco = json.dumps({"images": pictures, "annotations": captions})
    (tmp_path / "captions.json").write_text(coco, encoding="utf-8")
    (tmp_path / "captions.toml").write_text(
        '[captions]\npath = "captions.json"\nformat = "coco"\n', encoding="utf-8"
    )
    return str(tmp_path / "captions.toml")


@pytest.mark.parametrize("wanted", ["ignore", "report", "drop"])
def test_captions_of_evaluation_sets_are_ignored_reported_or_dropped(
    workspace: Workspace, finish_stage: Finish, tmp_path: Path, wanted: str
) -> None:
    repeated = replace(A, caption=CAPTION.upper())
    other = replace(A, pair_id="b" * 32, url="http://b/", sha256="b", pixels="b", pdq=None)
    finish_stage("download", schemas.DOWNLOADED, downloaded([repeated, other]))
    config = DedupConfig(evalsets=captioned_sets(tmp_path), text_overlap=wanted)  # type: ignore[arg-type]
    manifest = run(config, workspace, InlineExecutor())
    assert manifest.drops == ({"evaluation_caption": 1} if wanted == "drop" else {})
    rows = read(workspace, "eval_overlaps", schemas.EVAL_OVERLAPS) if wanted != "ignore" else []
    assert [(r["pair_id"], r["evalset"], r["method"], r["distance"]) for r in rows] == (
        [] if wanted == "ignore" else [(repeated.pair_id, "captions", "caption", 0)]
    )


def test_a_caption_that_is_too_long_is_preferred_to_none_that_fits(
    workspace: Workspace, finish_stage: Finish
) -> None:
    captions = ["x" * 9, "x" * 10, "x" * 11, "x" * 20]
    pairs = [
        replace(A, pair_id=f"{i:032x}", url=f"http://{i}/", caption=c)
        for i, c in enumerate(captions)
    ]
    finish_stage("download", schemas.DOWNLOADED, downloaded(pairs))
    for left, stays in (([0, 1, 2, 3], 1), ([2, 3], 2)):
        finish_stage(
            "download", schemas.DOWNLOADED, downloaded([pairs[i] for i in left]), made_by=str(left)
        )
        run(DedupConfig(caption_characters=10), workspace, InlineExecutor())
        assert kept(workspace) == {pairs[stays].pair_id}


def test_changing_an_evaluation_set_runs_the_stage_again(
    workspace: Workspace, finish_stage: Finish, tmp_path: Path
) -> None:
    png = encode(scene(1), "PNG")
    finish_stage(
        "download",
        schemas.DOWNLOADED,
        downloaded([replace(A, sha256=hashlib.sha256(png).hexdigest())]),
    )
    toml = evaluation(tmp_path, encode(scene(2), "PNG"))
    assert run(DedupConfig(evalsets=toml), workspace, InlineExecutor()).rows_out == 1
    evaluation(tmp_path, png)
    assert run(DedupConfig(evalsets=toml), workspace, InlineExecutor()).rows_out == 0


def test_mistakes_are_told_before_work_begins(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="download"):
        run(DedupConfig(), workspace, InlineExecutor())
    (tmp_path / "sets.toml").write_text("[a]\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"a\.path is missing"):
        run(DedupConfig(evalsets=str(tmp_path / "sets.toml")), workspace, InlineExecutor())


def test_a_mistake_in_the_settings_deletes_nothing(
    workspace: Workspace, finish_stage: Finish, tmp_path: Path
) -> None:
    finish_stage("download", schemas.DOWNLOADED, downloaded([A]))
    first = run(DedupConfig(), workspace, InlineExecutor())
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.zip").write_bytes(b"no zip")
    for place in ("empty", "absent", "file.zip"):
        (tmp_path / "sets.toml").write_text(f'[a]\npath = "{place}"\n', encoding="utf-8")
        with pytest.raises(InputError, match=f"evaluation set a: .*{place}"):
            run(DedupConfig(evalsets=str(tmp_path / "sets.toml")), workspace, InlineExecutor())
    assert workspace.finished("dedup") == first


def test_moved_evaluation_sets_are_no_other_files(
    workspace: Workspace, finish_stage: Finish, tmp_path: Path
) -> None:
    finish_stage("download", schemas.DOWNLOADED, downloaded([A]))
    toml = Path(evaluation(tmp_path, encode(scene(2), "PNG")))
    files = run(DedupConfig(evalsets=str(toml)), workspace, InlineExecutor()).files
    assert set(files) == {"evaluation sets", "scenes"}
    moved = tmp_path / "moved.toml"
    toml.rename(moved)
    assert run(DedupConfig(evalsets=str(moved)), workspace, InlineExecutor()).files == files


def test_a_broken_evaluation_set_ends_the_stage_with_its_name(
    workspace: Workspace, finish_stage: Finish, tmp_path: Path
) -> None:
    finish_stage("download", schemas.DOWNLOADED, downloaded([A]))
    toml = evaluation(tmp_path, b"no picture")
    with pytest.raises(InputError, match=r"scenes: .* holds no readable picture"):
        run(DedupConfig(evalsets=toml), workspace, InlineExecutor())


def test_an_interrupted_run_goes_on_from_what_is_whole(
    workspace: Workspace, finish_stage: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = some_pairs(50, 7)
    finish_stage("download", schemas.DOWNLOADED, *cut(pairs, 3))
    small_blocks(monkeypatch, bucket=20, block=15)

    class Interrupted(Exception):
        pass

    class Interrupting(InlineExecutor):
        left = 0

        def map(self, work, tasks):  # type: ignore[no-untyped-def]
            for result in super().map(work, tasks):
                Interrupting.left -= 1
                if Interrupting.left < 0:
                    raise Interrupted
                yield result

    for _ in range(3):
        Interrupting.left = 7
        with pytest.raises(Interrupted):
            run(DedupConfig(), workspace, Interrupting())
    run(DedupConfig(), workspace, InlineExecutor())
    assert verdicts(workspace) == expected_verdicts(pairs)
