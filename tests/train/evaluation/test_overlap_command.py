import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dedup.deduplicate import DedupConfig
from pipeline import schemas
from pipeline.errors import ConfigError, InputError, MissingInput
from pipeline.pictures.images import decode
from pipeline.runtime.manifest import Outcome
from pipeline.runtime.stage import begin
from pipeline.runtime.workspace import Workspace
from tests.train.shards import UNREAD
from train.config import TrainConfig
from train.evaluation.config import EvaluateConfig
from train.evaluation.overlap_command import overlap
from train.evaluation.shown import compared, read_shown

OWN_WEIGHTS = b"weights of this corpus"


@dataclass
class Web:
    """Makes the stages that an analysis reads, of literals."""

    folder: Path

    def corpus(
        self,
        name: str = "corpus",
        *,
        evalsets: Sequence[str] = ("a", "b"),
        drop: bool = False,
        overlaps: Sequence[tuple[str, str, str, str]] = (),
        duplicates: Sequence[tuple[str, str]] = (),
        left: Sequence[str] | None = None,
    ) -> Workspace:
        """Make "dedup", and where `left` names pairs "shard" and "train"."""
        workspace = Workspace(root=str(self.folder / name))
        toml = self.file("sets.toml", b"all sets") if evalsets else ""
        config = DedupConfig(evalsets=toml, drop_overlaps=drop)
        run = begin("dedup", config, workspace, files=self.places(evalsets))
        met = [(p, s, "test", i, m, 0.0) for p, s, i, m in overlaps]
        pairs = [(p, of, "near_duplicate", 3.0, False) for p, of in duplicates]
        run.write_table("eval_overlaps", rows(met, schemas.EVAL_OVERLAPS), schemas.EVAL_OVERLAPS)
        run.write_table("duplicates", rows(pairs, schemas.DUPLICATES), schemas.DUPLICATES)
        run.finish([])
        if left is not None:
            shard = begin("shard", DedupConfig(), workspace)
            index = [{**UNREAD, "pair_id": pair_id} for pair_id in left]
            kept = pa.Table.from_pylist(index, schemas.SHARD_INDEX)
            part = workspace.write(shard.output(0).name("parquet"), kept, schemas.SHARD_INDEX)
            shard.finish([Outcome(rows_in=len(left), rows_out=len(left), parts={"main": [part]})])
            self.train(workspace)
        return workspace

    def train(self, workspace: Workspace, **settings: str) -> None:
        run = begin("train", TrainConfig(**settings), workspace, reads=["shard"])  # type: ignore[arg-type]
        Path(workspace.path("train")).mkdir(exist_ok=True)
        Path(workspace.path("train", "model.pt")).write_bytes(OWN_WEIGHTS)
        run.add("model", workspace.describe("train/model.pt", rows=0))
        run.finish([])

    def evaluate(
        self,
        workspace: Workspace,
        ranks: dict[str, dict[str, int]],
        *,
        head: str = "zero_shot",
        variants: Sequence[str] = ("own",),
        weights: str = "",
    ) -> Workspace:
        config = EvaluateConfig(evalsets=str(self.folder / "sets.toml"))
        reads = ["train"] if workspace.manifest("train") else []
        run = begin("evaluate", config, workspace, reads=reads, files=self.places(ranks))
        predictions = [
            (name, head, variant, "test", item, "x", "x", rank if variant == variants[0] else 9)
            for name, items in ranks.items()
            for variant in variants
            for item, rank in items.items()
        ]
        table = rows(predictions, schemas.PREDICTIONS)
        run.write_table("predictions", table, schemas.PREDICTIONS)
        results = {"model": {"path": "model.pt", "sha256": weights}}
        Path(workspace.path("evaluate", "results.json")).write_text(json.dumps(results))
        run.add("results", workspace.describe("evaluate/results.json", rows=0))
        run.finish([])
        return workspace

    def elsewhere(self, ranks: dict[str, dict[str, int]], weights: str = "") -> Workspace:
        return self.evaluate(Workspace(root=str(self.folder / "else")), ranks, weights=weights)

    def places(self, evalsets: Sequence[str] | dict[str, dict[str, int]]) -> dict[str, str]:
        return {name: self.file(name, name.encode()) for name in evalsets}

    def file(self, name: str, content: bytes) -> str:
        path = self.folder / name
        if not path.exists():
            path.write_bytes(content)
        return str(path)


def rows(tuples: Sequence[tuple[object, ...]], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist(
        [dict(zip(schema.names, one, strict=True)) for one in tuples], schema
    )


@pytest.fixture
def web(tmp_path: Path) -> Web:
    return Web(folder=tmp_path)


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that runs the command and returns what it prints."""

    def call(workspace: Workspace, **options: object) -> str:
        assert overlap(workspace.root, output=str(tmp_path / "out"), **options) == 0  # type: ignore[arg-type]
        return capsys.readouterr().out

    return call


def right(hits: int, images: int, first: int = 0) -> dict[str, int]:
    """Return ranks of pictures 1.png, ..., the first `hits` of which are right."""
    return {f"{first + i}.png": 1 if i < hits else 2 for i in range(images)}


def shown_by(evalset: str, count: int) -> list[tuple[str, str, str, str]]:
    return [(f"{evalset}{i}", evalset, f"{i}.png", "near_duplicate") for i in range(count)]


def test_tables_and_figure_are_written(web: Web, run: Callable[..., str], tmp_path: Path) -> None:
    overlaps = shown_by("a", 40)
    corpus = web.corpus(overlaps=overlaps, left=[pair for pair, *_ in overlaps])
    # Of 200 pictures the 40 that are shown are right, and 40 of the others.
    text = run(web.evaluate(corpus, {"a": right(80, 200), "b": right(5, 10)}))
    assert "| a   |      200 |      40 | 20.00% | 40.00% | 25.00% | 100.00% |" in text
    assert "Evaluation pictures that pairs of shard show: 40." in text
    assert "trained" not in text
    table = pq.read_table(tmp_path / "out/overlap.parquet")
    assert schemas.check(table, schemas.OVERLAP_ACCURACY, source="test") == table
    first, second = table.to_pylist()
    assert (first["overlap_accuracy"], first["clean_accuracy"]) == (1.0, 0.25)
    assert first["p_value"] == pytest.approx(0.25**40)
    assert second["overlap_accuracy"] is None
    plain = json.loads((tmp_path / "out/overlap.json").read_text())
    assert plain["sets"] == [first, second]
    assert plain["summary"]["above"] == 1
    assert (tmp_path / "out/overlap.md").read_text() in text
    picture = decode((tmp_path / "out/overlap.png").read_bytes())
    assert picture.width > 1000
    assert Image.open(tmp_path / "out/overlap.png").convert("L").getextrema() == (0, 255)


def test_the_same_figure_twice_is_the_same_file(
    web: Web, run: Callable[..., str], tmp_path: Path
) -> None:
    corpus = web.evaluate(web.corpus(overlaps=shown_by("a", 4), left=["a0"]), {"a": right(8, 20)})
    run(corpus)
    before = (tmp_path / "out/overlap.png").read_bytes()
    run(corpus)
    assert (tmp_path / "out/overlap.png").read_bytes() == before


def test_pairs_that_were_dropped_later_count_only_by_their_stand_ins(web: Web) -> None:
    corpus = web.corpus(
        overlaps=[
            ("kept", "a", "1.png", "same_bytes"),
            ("twin", "a", "2.png", "near_duplicate"),
            ("gone", "a", "3.png", "embedding"),
            ("orphan", "a", "4.png", "mirrored"),
            ("kept", "b", "5.png", "caption"),
        ],
        duplicates=[("twin", "kept"), ("orphan", "gone"), ("other", "kept")],
        left=["kept", "another"],
    )
    found = read_shown(corpus, compared(corpus))
    assert found.items == {"a": {"1.png", "2.png"}}
    assert (found.met, found.left, found.stage) == (4, 2, "shard")


def test_a_corpus_without_shards_is_what_dedup_kept(web: Web) -> None:
    corpus = web.corpus(overlaps=shown_by("a", 2))
    found = read_shown(corpus, compared(corpus))
    assert (found.met, found.left, found.stage) == (2, 0, "dedup")


def test_a_corpus_without_its_overlap_is_refused(web: Web, run: Callable[..., str]) -> None:
    corpus = web.evaluate(web.corpus(drop=True, left=[]), {"a": right(1, 2)})
    with pytest.raises(ConfigError, match=r"dropped the pictures that overlap \(drop_overlaps = true\)"):  # fmt: skip
        run(corpus)


def test_a_corpus_that_was_compared_with_nothing_is_refused(
    web: Web, run: Callable[..., str]
) -> None:
    web.file("sets.toml", b"all sets")
    corpus = web.evaluate(web.corpus(evalsets=(), left=[]), {"a": right(1, 2)})
    with pytest.raises(ConfigError, match="compared the corpus with no evaluation set"):
        run(corpus)


def test_other_sets_than_compared_are_refused_by_name(web: Web, run: Callable[..., str]) -> None:
    corpus = web.corpus(left=[])
    web.evaluate(corpus, {"a": right(1, 2), "c": right(1, 2)})
    with pytest.raises(InputError, match="was not compared with c, but with: a, b; name these by --only"):  # fmt: skip
        run(corpus)
    assert "| a " in run(corpus, only=["a"])
    with pytest.raises(ConfigError, match="only is d, expected sets that were evaluated: a, c"):
        run(corpus, only=["d"])


def test_a_set_that_has_changed_since_is_refused(web: Web, run: Callable[..., str]) -> None:
    corpus = web.corpus(left=[])
    (web.folder / "b").write_bytes(b"other pictures")
    web.evaluate(corpus, {"a": right(1, 2), "b": right(1, 2)})
    with pytest.raises(InputError, match="the files of b were others when"):
        run(corpus)


def test_missing_predictions_are_one_line(web: Web, run: Callable[..., str]) -> None:
    corpus = web.corpus(left=[])
    with pytest.raises(MissingInput, match=r"evaluate has not finished in .*; run `witmill evaluate`"):  # fmt: skip
        run(corpus)
    web.evaluate(corpus, {"a": right(1, 2)}, head="linear_probe")
    with pytest.raises(ConfigError, match="has no zero-shot predictions"):
        run(corpus)
    with pytest.raises(InputError, match="is no witmill workspace"):
        run(Workspace(root=str(web.folder / "nothing")))


def test_a_model_from_elsewhere_is_told(web: Web, run: Callable[..., str]) -> None:
    corpus = web.corpus(overlaps=shown_by("a", 2), left=["a0", "a1"])
    other = web.elsewhere({"a": right(1, 4)}, weights="0" * 64)
    text = run(corpus, evaluation=other.root)
    assert "The model was not trained on this corpus" in text
    assert "| a   |        4 |       2 |" in text


def test_the_same_weights_in_another_folder_are_not_from_elsewhere(
    web: Web, run: Callable[..., str]
) -> None:
    corpus = web.corpus(left=[])
    train = corpus.manifest("train")
    assert train
    ours = train.tables["model"][0].sha256
    assert "not trained" not in run(corpus, evaluation=web.elsewhere({"a": right(1, 2)}, ours).root)


def test_weights_that_training_began_with_are_told(web: Web, run: Callable[..., str]) -> None:
    corpus = web.corpus(left=[])
    web.train(corpus, initial="other.pt")
    web.evaluate(corpus, {"a": right(1, 2)})
    assert "seen other pictures, too: train.initial was set" in run(corpus)


def test_one_choice_of_templates_is_analysed(web: Web, run: Callable[..., str]) -> None:
    corpus = web.corpus(left=[])
    web.evaluate(corpus, {"a": right(3, 4)}, variants=("own", "plain"))
    assert "75.00%" in run(corpus)
    assert "0.00%" in run(corpus, templates="plain")
    with pytest.raises(ConfigError, match="templates is paper, expected one of: own, plain"):
        run(corpus, templates="paper")
