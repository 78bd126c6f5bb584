import bz2
import hashlib
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import schemas
from pipeline.errors import ConfigError, InputError
from pipeline.runtime.executor import Executor, InlineExecutor
from pipeline.runtime.manifest import Manifest
from pipeline.runtime.workspace import Workspace
from queries import stretches, wikipedia
from queries.wikipedia import REASONS, WikipediaConfig, cut_rows, run
from queries.wikitext import article_text
from tests.queries.dumps import HEAD, articles, dump, multistream, page
from tests.reference import wikipedia_counts as reference

ROOT = Path(__file__).parents[2]
SAMPLE = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
FLOORS = {
    "minimum_word_count": 3,
    "minimum_bigram_word_count": 3,
    "minimum_bigram_count": 2,
    "minimum_bigram_pmi": 0.5,
}
TABLES = {
    "words": schemas.WIKIPEDIA_WORDS,
    "bigrams": schemas.WIKIPEDIA_BIGRAMS,
    "pages": schemas.WIKIPEDIA_PAGES,
}
TEXTS = [
    "'''Golden Gate''' is a [[strait]]. The golden gate opens.\n* golden retriever {{cite|golden gate}}",
    "Golden-gate bridge<ref>golden gate</ref> km² km2; golden gate, golden gate!",
    "gate\ngolden Straße STRASSE strasse\nthe golden retriever",
]
PAGES = [
    page("Golden Gate", TEXTS[0]),
    page("GG", "#REDIRECT [[Golden Gate]]", redirect_to="Golden Gate"),
    page("Template:Gate", "golden gate", namespace=10),
    page("Gate (disambiguation)", TEXTS[1]),
    page("Styles", "golden { gate }", model="css"),
    page("Q & A", TEXTS[2]),
    "<page><title>Broken</title><ns>0</page>",
]


def write(folder: Path, data: bytes, name: str = "enwiki.xml.bz2") -> str:
    (folder / name).write_bytes(data)
    return str(folder / name)


def count(
    path: str, workspace: Workspace, executor: Executor | None = None, **more: object
) -> Manifest:
    config = WikipediaConfig.model_validate({"dumps": (path,), **FLOORS, **more})
    return run(config, workspace, executor or InlineExecutor())


def rows(workspace: Workspace, table: str) -> pa.Table:
    return workspace.read_table("wikipedia", table, TABLES[table])


def counted(workspace: Workspace, table: str) -> dict[str, int]:
    found = rows(workspace, table)
    return dict(zip(found[0].to_pylist(), found["count"].to_pylist(), strict=True))


def digests(workspace: Workspace) -> dict[str, str]:
    found = Path(workspace.root).rglob("*.parquet")
    return {
        str(p.relative_to(workspace.root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in found
    }


def cut_small(patch: pytest.MonkeyPatch, size: int) -> None:
    patch.setattr(wikipedia, "cut_dumps", lambda given, _: stretches.cut_dumps(given, size))


def test_words_bigrams_and_pages_are_what_the_articles_hold(
    tmp_path: Path, workspace: Workspace
) -> None:
    path = write(tmp_path, bz2.compress(dump(PAGES)))
    manifest = count(path, workspace, minimum_bigram_pmi=-99.0, minimum_bigram_count=1)
    assert counted(workspace, "words") == {"golden": 8, "gate": 6, "strasse": 3}
    assert counted(workspace, "bigrams") == {
        "golden gate": 4, "strasse strasse": 2, "golden strasse": 1,
    }  # fmt: skip
    assert rows(workspace, "pages").to_pylist() == [
        {"title": "Golden Gate", "redirect_to": None, "disambiguation": False},
        {"title": "GG", "redirect_to": "Golden Gate", "disambiguation": False},
        {"title": "Gate (disambiguation)", "redirect_to": None, "disambiguation": True},
        {"title": "Q & A", "redirect_to": None, "disambiguation": False},
    ]
    assert manifest.drops == {"broken_page": 1, "not_wikitext": 1, "other_namespace": 1}
    assert (manifest.rows_in, manifest.rows_out) == (7, 4)
    texts = [article_text(text) for text in TEXTS]
    words = reference.count_words(texts)
    expected = {
        "articles": 2, "disambiguations": 1, "redirects": 1, "distinct_words": len(words),
        "words": words.total(), "text_characters": sum(map(len, texts)),
        "tokens": sum(len(line) for line in reference.lines_of(texts)),
    }  # fmt: skip
    assert manifest.counters == expected


def test_everything_that_is_no_article_is_a_drop_with_its_reason(
    tmp_path: Path, workspace: Workspace
) -> None:
    manifest = count(write(tmp_path, bz2.compress(dump(PAGES))), workspace)
    (part,) = manifest.tables["drops"]
    drops = workspace.read(part, schemas.DROPS)
    assert [(d["reason"], d["detail"].split(": no")[0]) for d in drops.to_pylist()] == [
        ("other_namespace", "enwiki.xml.bz2: Template:Gate"),
        ("not_wikitext", "enwiki.xml.bz2: Styles"),
        ("broken_page", "enwiki.xml.bz2: Broken: mismatched tag: line 1, column 34"),
    ]
    assert set(drops["reason"].to_pylist()) < set(REASONS)


def test_the_figures_are_those_of_a_slow_count(tmp_path: Path, workspace: Workspace) -> None:
    pages = articles(150, words=120)
    path = write(tmp_path, multistream(pages, size=20))
    count(path, workspace, minimum_bigram_pmi=1.5, minimum_bigram_word_count=6)
    texts = [
        article_text(p.partition('preserve">')[2].partition("</text>")[0])
        for p in pages
        if "<ns>0<" in p and "<redirect" not in p
    ]
    words = reference.count_words(texts)
    assert counted(workspace, "words") == {w: n for w, n in words.items() if n >= 3}
    pairs = reference.count_pairs(texts, [w for w, n in words.items() if n >= 6])
    expected = {
        pair: (n, round(reference.pmi(pair, pairs, words), 3))
        for pair, n in pairs.items()
        if n >= 2 and round(reference.pmi(pair, pairs, words), 3) >= 1.5
    }
    found = {r["bigram"]: (r["count"], r["pmi"]) for r in rows(workspace, "bigrams").to_pylist()}
    assert len(found) > 50
    assert found == expected


def test_the_most_frequent_words_and_the_most_telling_bigrams_stand_first(
    tmp_path: Path, workspace: Workspace
) -> None:
    count(write(tmp_path, dump(articles(80, words=120)), "enwiki.xml"), workspace)
    words = rows(workspace, "words").to_pylist()
    assert words == sorted(words, key=lambda r: (-r["count"], r["word"]))
    bigrams = rows(workspace, "bigrams").to_pylist()
    assert bigrams == sorted(bigrams, key=lambda r: (-r["pmi"], -r["count"], r["bigram"]))
    assert len(bigrams) > 50


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(["xml", "one", "many"]), size=st.integers(2000, 60_000))
def test_neither_the_cut_nor_the_file_form_changes_a_byte(
    tmp_path_factory: pytest.TempPathFactory, kind: str, size: int
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    pages = articles(60, words=100)
    data = {
        "xml": dump(pages),
        "one": bz2.compress(dump(pages), 1),
        "many": multistream(pages, size=4),
    }
    whole, cut = Workspace(root=str(folder / "whole")), Workspace(root=str(folder / "cut"))
    count(write(folder, data["one"]), whole)
    with pytest.MonkeyPatch.context() as patch:
        cut_small(patch, size // 4 if kind == "xml" else size)
        count(write(folder, data[kind], "enwiki.xml.bz2"), cut)
    assert digests(cut) == digests(whole)


def test_every_executor_writes_the_same_bytes(
    tmp_path: Path, workspace: Workspace, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, multistream(articles(80, words=100), size=5))
    alone = Workspace(root=str(tmp_path / "alone"))
    count(path, alone)
    cut_small(monkeypatch, 5000)
    count(path, workspace, executor)
    assert digests(workspace) == digests(alone)
    assert not (Path(workspace.root) / "wikipedia/_run").exists()


def test_tables_are_written_in_parts_of_one_size(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wikipedia, "PART_ROWS", 25)
    path = write(tmp_path, bz2.compress(dump(articles(60, words=100))))
    manifest = count(path, workspace)
    assert [p.rows for p in manifest.tables["words"]][:-1] == (
        [25] * (len(manifest.tables["words"]) - 1)
    )
    assert len(manifest.tables["bigrams"]) > 1
    assert len(manifest.tables["pages"]) == 3
    whole = Workspace(root=str(tmp_path / "whole"))
    monkeypatch.undo()
    count(path, whole)
    for table in TABLES:
        assert rows(workspace, table).equals(rows(whole, table))


def test_bigrams_of_content_words_alone_may_be_asked_for(
    tmp_path: Path, workspace: Workspace
) -> None:
    path = write(tmp_path, bz2.compress(dump(PAGES)))
    loose = {"minimum_bigram_pmi": -99.0, "minimum_bigram_count": 1}
    count(path, workspace, content_bigrams=True, **loose)
    assert set(counted(workspace, "bigrams")) == {
        "golden gate", "strasse strasse", "golden strasse",
    }  # fmt: skip


KILLED = """
import os, signal, sys
from queries import stretches, wikipedia
from pipeline.runtime.executor import InlineExecutor
from pipeline.runtime.workspace import Workspace

step, dump, root = sys.argv[1:]
work, calls = getattr(wikipedia, step), []

def killed(task):
    calls.append(task)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return work(task)

setattr(wikipedia, step, killed)
wikipedia.PART_ROWS = 40
wikipedia.cut_dumps = lambda given, _: stretches.cut_dumps(given, 4000)
config = wikipedia.WikipediaConfig(
    dumps=(dump,),
    minimum_word_count=3,
    minimum_bigram_word_count=3,
    minimum_bigram_count=2,
    minimum_bigram_pmi=0.5,
)
wikipedia.run(config, Workspace(root=root), InlineExecutor())
"""


@pytest.mark.parametrize(
    "step", ["read_stretch", "add_up_words", "count_stretch_pairs", "add_up_pairs", "write_pages"]
)
def test_a_run_that_was_killed_goes_on_and_ends_the_same(
    step: str, tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, multistream(articles(60, words=60), size=5))
    command = [sys.executable, "-c", KILLED, step, path, workspace.root]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    monkeypatch.setattr(wikipedia, "PART_ROWS", 40)
    cut_small(monkeypatch, 4000)
    manifest = count(path, workspace)
    assert manifest.resumed_tasks >= 1
    undisturbed = Workspace(root=str(tmp_path / "undisturbed"))
    count(path, undisturbed)
    assert digests(workspace) == digests(undisturbed)


def test_a_run_that_is_done_is_not_done_again(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, bz2.compress(dump(PAGES)))
    first = count(path, workspace)
    monkeypatch.setattr(wikipedia, "read_stretch", None)
    assert count(path, workspace) == first


def test_another_dump_is_counted_anew(tmp_path: Path, workspace: Workspace) -> None:
    path = write(tmp_path, bz2.compress(dump(PAGES)))
    count(path, workspace)
    write(tmp_path, bz2.compress(dump([page("A", "dog dog dog")])))
    count(path, workspace)
    assert counted(workspace, "words") == {"dog": 3}


def test_a_damaged_block_is_named_and_the_rest_is_counted(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = bz2.compress(dump(articles(300, words=400)), 1)
    damaged = bytearray(whole)
    damaged[len(whole) // 2 : len(whole) // 2 + 9] = b"\xff" * 9
    path = write(tmp_path, bytes(damaged))
    manifest = count(path, workspace)
    assert manifest.drops["damaged_block"] == 1
    assert manifest.drops["broken_page"] == 1
    assert 150 < len(rows(workspace, "pages")) < 280
    (part,) = manifest.tables["drops"]
    details = workspace.read(part, schemas.DROPS)["detail"].to_pylist()
    assert any(detail.startswith("enwiki.xml.bz2: at byte ") for detail in details)
    again = Workspace(root=str(tmp_path / "again"))
    cut_small(monkeypatch, 3001)
    count(path, again)
    assert digests(again) == digests(workspace)


def test_a_dump_that_is_cut_off_is_counted_as_far_as_it_goes(
    tmp_path: Path, workspace: Workspace
) -> None:
    whole = bz2.compress(dump(articles(300, words=400)), 1)
    manifest = count(write(tmp_path, whole[: len(whole) // 2]), workspace)
    assert manifest.drops["damaged_block"] == 1
    assert 80 < len(rows(workspace, "pages")) < 160


def test_several_dumps_are_counted_as_one(tmp_path: Path, workspace: Workspace) -> None:
    write(tmp_path, bz2.compress(dump(PAGES[:3])), "enwiki-1.xml-p1p3.bz2")
    write(tmp_path, dump(PAGES[3:]), "enwiki-2.xml-p4p9")
    count(str(tmp_path), workspace)
    other = Workspace(root=str(tmp_path / "other"))
    count(write(tmp_path, dump(PAGES), "all"), other)
    for table in TABLES:
        assert rows(workspace, table).equals(rows(other, table))


def test_a_dump_without_a_word_makes_empty_tables(tmp_path: Path, workspace: Workspace) -> None:
    count(write(tmp_path, dump([page("A"), page("B", "!?")]), "enwiki.xml"), workspace)
    assert [len(rows(workspace, table)) for table in TABLES] == [0, 0, 2]


def test_a_dump_without_a_page_is_an_error(tmp_path: Path, workspace: Workspace) -> None:
    path = write(tmp_path, bz2.compress(HEAD.encode()))
    with pytest.raises(InputError, match="the dumps hold no page; expected pages-articles"):
        count(path, workspace)


def test_no_dump_is_an_error(workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="no dump is given"):
        run(WikipediaConfig(), workspace, InlineExecutor())


def test_dumps_may_lie_in_a_bucket(tmp_path: Path, s3_bucket: str) -> None:
    from pipeline.runtime import storage

    data = bz2.compress(dump(PAGES))
    storage.write_bytes(f"{s3_bucket}/dumps/enwiki.xml.bz2", data)
    there, here = Workspace(root=f"{s3_bucket}/run"), Workspace(root=str(tmp_path / "run"))
    remote = count(f"{s3_bucket}/dumps", there)
    local = count(write(tmp_path, data), here)
    assert remote.content == local.content


@pytest.mark.parametrize(
    ("files", "size", "runs"),
    [
        ([("a", 2), ("b", 0), ("c", 5)], 3, [[("a", 0, 2), ("c", 0, 1)], [("c", 1, 3)], [("c", 4, 1)]]),
        ([("a", 4)], 2, [[("a", 0, 2)], [("a", 2, 2)]]),
        ([("a", 0)], 2, []),
    ],
)  # fmt: skip
def test_rows_are_cut_into_parts_across_files(
    files: list[tuple[str, int]], size: int, runs: list[list[tuple[str, int, int]]]
) -> None:
    assert list(cut_rows(files, size)) == runs


@pytest.fixture
def sample() -> str:
    """Return the piece of the English Wikipedia that gensim carries, or the dump that a variable names."""
    if "WITMILL_WIKIPEDIA" in os.environ:
        return os.environ["WITMILL_WIKIPEDIA"]
    found = find_spec("gensim")
    if found is None or found.origin is None:
        pytest.skip("no real dump: gensim is not installed, and WITMILL_WIKIPEDIA names none")
    return str(Path(found.origin).parent / "test/test_data" / SAMPLE)


def test_a_piece_of_the_real_wikipedia_gives_its_words_and_names(
    sample: str, workspace: Workspace
) -> None:
    manifest = count(sample, workspace, minimum_bigram_word_count=10, minimum_bigram_count=9)
    words, bigrams = counted(workspace, "words"), list(counted(workspace, "bigrams"))
    assert list(words)[:6] == ["the", "of", "and", "in", "to", "a"]
    assert not set(words) & {"nbsp", "jpg", "colspan", "rowspan", "cellpadding", "bgcolor", "px"}
    names = [
        "las vegas",
        "hong kong",
        "los angeles",
        "ayn rand",
        "united states",
        "abraham lincoln",
    ]
    assert set(names) <= set(bigrams)
    assert manifest.drops == {"other_namespace": 1}
    assert manifest.counters["articles"] == 98
    assert manifest.counters["redirects"] == 99
    assert manifest.counters["disambiguations"] == 8
