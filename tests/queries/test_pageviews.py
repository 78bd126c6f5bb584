import gzip
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline import schemas
from pipeline.errors import InputError, StorageError, TaskFailed, WitmillError
from pipeline.runtime.executor import Executor, InlineExecutor
from queries import pageviews
from queries.pageviews import PageviewsConfig, ViewsReport, count_views

HOURS = [
    "de Hund 900 0\nen Dog 10 0\nen Main_Page 99999 0\nen.m dog 5 0\nen.zero Dog 1 0\nen.b Dog 70 0\n",
    'en Dog 3 0\nen Caf%C3%A9 7 0\nen Caf\u00e9 2 0\nen "Heroes" 4 0\nen Talk:Dog 8 0\nen - 44 0\n',
]
BROKEN = [
    b"en Dog", b"en Dog 5", b"en Dog x 0", b"en Dog -5 0", b"en Dog 5 0 0", b"en  5 0 0", b"en Caf\xe9 5 0",
    b"en Dog 99999999999 0", b"en Dog 5.0 0", b"en ",
]  # fmt: skip


def write_hour(path: Path, lines: str | bytes) -> str:
    data = lines if isinstance(lines, bytes) else lines.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def count(folder: Path, **settings: object) -> ViewsReport:
    given = {"files": (str(folder / "*.gz"),), "output": str(folder / "views.parquet")}
    return count_views(PageviewsConfig.model_validate(given | settings), InlineExecutor())


def views(folder: Path) -> dict[str, int]:
    table = pq.read_table(folder / "views.parquet")
    schemas.check(table, schemas.PAGE_VIEWS, source="views")
    return dict(zip(table["title"].to_pylist(), table["views"].to_pylist(), strict=True))


@pytest.fixture
def hours(tmp_path: Path) -> Path:
    for place, lines in enumerate(HOURS):
        write_hour(tmp_path / f"pageviews-20260101-0{place}0000.gz", lines)
    return tmp_path


def test_every_executor_adds_up_sites_and_hours(hours: Path, executor: Executor) -> None:
    config = PageviewsConfig(files=(str(hours),), output=str(hours / "views.parquet"))
    report = count_views(config, executor)
    assert views(hours) == {"Dog": 19, "Café": 9, '"Heroes"': 4}
    assert (report.titles, report.views, report.files) == (3, 32, 2)
    assert report.counters == {"lines": 10, "namespace": 3}
    assert not (hours / "views.parquet.parts").exists()


def test_the_most_viewed_come_first_and_equals_by_title(tmp_path: Path) -> None:
    write_hour(tmp_path / "a.gz", "en B 5 0\nen C 9 0\nen A 5 0\n")
    count(tmp_path)
    assert list(views(tmp_path)) == ["C", "A", "B"]


def test_broken_lines_are_passed_over_and_counted(tmp_path: Path) -> None:
    write_hour(tmp_path / "a.gz", b"\n".join([b"en Dog 5 0", *BROKEN, b"x" * 200_000, b"", b"en Dog 6 0"]))  # fmt: skip
    report = count(tmp_path)
    assert views(tmp_path) == {"Dog": 11}
    assert report.counters["broken"] == len(BROKEN)
    assert report.counters["lines"] == len(BROKEN) + 2


def test_an_hour_counts_only_from_so_many_views_on(hours: Path) -> None:
    count(hours, domains=("en",), minimum_hourly_views=4)
    assert views(hours) == {"Dog": 10, "Café": 9, '"Heroes"': 4}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_lines_cut_by_a_piece_are_whole_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(pageviews, "_CHUNK_BYTES", size)
    monkeypatch.setattr(pageviews, "_ROWS_TO_ADD_UP", 2)
    write_hour(tmp_path / "a.gz", HOURS[0] + HOURS[1].rstrip("\n"))
    count(tmp_path)
    assert views(tmp_path) == {"Dog": 19, "Café": 9, '"Heroes"': 4}


@given(
    st.lists(
        st.tuples(st.sampled_from(["Dog", "dog", "Hot_dog", "Talk:A", "-"]), st.integers(0, 99))
    )
)
def test_views_add_up_as_a_plain_loop_adds_them_up(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("hours")
    expected: dict[str, int] = {}
    for page, number in lines:
        title = {"dog": "Dog", "Hot_dog": "Hot dog"}.get(page, page)
        if title in ("Dog", "Hot dog") and number:
            expected[title] = expected.get(title, 0) + number
    write_hour(folder / "a.gz", "".join(f"en {page} {number} 0\n" for page, number in lines))
    if expected:
        count(folder)
        assert views(folder) == expected
    else:
        with pytest.raises(WitmillError):
            count(folder)


def test_uncompressed_lines_and_several_gzip_members_are_read(tmp_path: Path) -> None:
    write_hour(tmp_path / "a.txt", "en Dog 1 0\n")
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"en Dog 2 0\n") + gzip.compress(b"en Cat 3 0\n"))
    count(tmp_path, files=(str(tmp_path / "a.txt"), str(tmp_path / "b.gz")))
    assert views(tmp_path) == {"Dog": 3, "Cat": 3}


def test_a_file_given_twice_counts_once(hours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hours)
    count(hours, files=(str(hours / "*.gz"), str(hours / "*.gz"), "*.gz", "./*.gz"))
    assert views(hours)["Dog"] == 19


def test_a_file_cut_short_is_named_and_the_others_are_not_counted_again(
    hours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = hours / "pageviews-20260101-020000.gz"
    whole = gzip.compress(b"".join(b"en Dog%d 1 0\n" % i for i in range(50_000)))
    last.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TaskFailed) as failed:
        count(hours)
    assert "020000.gz is cut short or broken" in str(failed.value.__cause__)
    assert not (hours / "views.parquet").exists()
    last.write_bytes(gzip.compress(b"en Dog 1 0\n"))
    counted: list[str] = []
    real = pageviews.count_hour

    def counting(task: pageviews.HourTask) -> int:
        counted.append(task.path)
        return real(task)

    monkeypatch.setattr(pageviews, "count_hour", counting)
    count(hours)
    assert counted == [str(last)]
    assert views(hours)["Dog"] == 20


@pytest.mark.parametrize("lines", ["", "de Hund 5 0\n", "Dog\t5\n"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, lines: str) -> None:
    write_hour(tmp_path / "a.gz", lines)
    with pytest.raises(TaskFailed) as failed:
        count(tmp_path)
    assert "has no line of en or en.m or en.zero" in str(failed.value.__cause__)


def test_hours_without_an_article_are_refused(tmp_path: Path) -> None:
    write_hour(tmp_path / "a.gz", "en Main_Page 5 0\n")
    with pytest.raises(InputError, match="no article was viewed"):
        count(tmp_path)


def test_no_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no files were given"):
        count(tmp_path, files=())
    with pytest.raises(StorageError, match="holds no files"):
        count(tmp_path)


@pytest.mark.parametrize("domains", [(), ("",), ("en m",)])
def test_sites_that_no_line_can_name_are_refused(domains: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match="names of sites"):
        PageviewsConfig(domains=domains)
