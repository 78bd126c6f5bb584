import gzip
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError, InputError, StorageError, WitmillError
from pipeline.inputs.common_crawl import list_crawl, parse_choices

CRAWL = "CC-MAIN-2024-22"
PATHS = [f"crawl-data/{CRAWL}/segments/17.{i % 3}/wat/CC-{i:05d}.warc.wat.gz" for i in range(12)]


def write_list(folder: Path, text: str | bytes, kind: str = "wat") -> str:
    listed = folder / "crawl-data" / CRAWL / f"{kind}.paths.gz"
    listed.parent.mkdir(parents=True, exist_ok=True)
    listed.write_bytes(text if isinstance(text, bytes) else gzip.compress(text.encode(), mtime=0))
    return str(folder)


def places(folder: Path, *chosen: str) -> list[int]:
    mirror = write_list(folder, "\n".join(PATHS) + "\n")
    return [PATHS.index(file.source) for file in list_crawl(CRAWL, "wat", chosen, mirror=mirror)]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (["0:3"], [0, 1, 2]),
        (["5"], [5]),
        (["0:12:5"], [0, 5, 10]),
        (["9:"], [9, 10, 11]),
        ([":2"], [0, 1]),
        ([":"], list(range(12))),
        (["4,1", " 2 , 0:2"], [0, 1, 2, 4]),
    ],
)
def test_files_are_chosen_by_their_places(
    chosen: list[str], expected: list[int], tmp_path: Path
) -> None:
    assert places(tmp_path, *chosen) == expected


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 5))
def test_a_range_means_what_a_slice_means(first: int, after: int, step: int) -> None:
    [choice] = parse_choices([f"{first}:{after}:{step}"])
    assert list(range(20))[slice(*choice)] == list(range(20))[first:after:step]


@given(st.text("0123456789:,- x", max_size=8))
def test_a_choice_is_understood_or_refused(text: str) -> None:
    pieces = [piece.strip() for piece in text.split(",")]
    if all(re.fullmatch(r"\d+|\d*:\d*(:0*[1-9]\d*)?", piece) for piece in pieces):
        assert len(parse_choices([text])) == len(pieces)
    else:
        with pytest.raises(ValueError, match="0:100:10"):
            parse_choices([text])


@pytest.mark.parametrize("text", ["", ",", "-1", "1:2:0", "1:2:3:4", "a", "1-2", "::2:"])
def test_what_is_no_choice_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="numbers and ranges such as"):
        parse_choices([text])


def test_paths_lie_below_the_mirror_and_sources_do_not_depend_on_it(tmp_path: Path) -> None:
    mirror = write_list(tmp_path, "\n".join(PATHS))
    for given_as in (mirror, f"{mirror}/"):
        [file] = list_crawl(CRAWL, "wat", ["7"], mirror=given_as)
        assert (file.path, file.source) == (f"{mirror}/{PATHS[7]}", PATHS[7])


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("12", "goes up to 12, but .* has 12 files, 0 to 11"),
        ("0:13", "goes up to 12, but"),
        ("15:20", "goes up to 19"),
        ("3:3", "chooses none of the 12 files"),
    ],
)
def test_places_beyond_the_list_are_named(chosen: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        places(tmp_path, chosen)


def test_a_crawl_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"wat.paths.gz.*expected the list of a crawl.*--mirror"):
        list_crawl(CRAWL, "wat", ["0"], mirror=str(tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html>no such key</html>",
        gzip.compress(b"crawl-data/x.gz\n" * 1000, mtime=0)[:-20],
        "../../etc/passwd\n",
        "crawl-data/../../x\n",
        "/etc/passwd\n",
        "https://elsewhere.example/x.gz\n",
        "s3://b/x\n",
        "a//b\n",
        "K\u00e4se\n",
        "\n",
    ],
)
def test_a_list_of_something_else_is_refused_in_one_line(text: str | bytes, tmp_path: Path) -> None:
    mirror = write_list(tmp_path, text)
    with pytest.raises(InputError, match=r"wat\.paths\.gz") as caught:
        list_crawl(CRAWL, "wat", ["0"], mirror=mirror)
    assert isinstance(caught.value, WitmillError)
    assert "\n" not in str(caught.value)


def test_a_path_listed_twice_is_one_file(tmp_path: Path) -> None:
    mirror = write_list(tmp_path, "\n".join([*PATHS, PATHS[0]]))
    assert len(list_crawl(CRAWL, "wat", [":"], mirror=mirror)) == 12
