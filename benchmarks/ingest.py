"""Time the reading of crawls into Parquet against merely reading the records, and against plain ways.

    pip install warcio beautifulsoup4 lxml msgspec pysimdjson
    python -m benchmarks.ingest PAGES.tar.xz

One core, processor time, the least of several rounds; all ways in the same run, as absolute figures
move with the machine. The WARC is built from the real pages of the archive, a gzip member for each
record; the WAT from the same pages by `benchmarks/crawl_files.py`, in the layout of Common Crawl's
JSON: it is not a file of Common Crawl. The plain ways only find the pairs; ours also writes the Parquet
parts. Peers that are not installed are left out.
"""

import argparse
import importlib.util
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

import orjson
import pyarrow as pa
from fastwarc.warc import ArchiveIterator

from benchmarks.crawl_files import Page, read_pages, warc_records, wat_records, write_archive
from pipeline.inputs.chunks import write_chunk
from pipeline.inputs.crawls import read_crawl
from pipeline.inputs.pairs import Place, Reference
from pipeline.pages.html import choose_base, find_images, refer_image
from pipeline.pages.open_graph import refer_open_graph
from pipeline.runtime.workspace import Workspace

ROUNDS = 7
CHUNK_ROWS = 262_144
# BeautifulSoup gets one page in so many.
SOUP_SHARE = 10

Pairs = Counter[tuple[str, str, str]]


def seconds(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return the least processor time of several rounds of `work`."""
    times = []
    for _ in range(rounds):
        begun = time.process_time()
        work()
        times.append(time.process_time() - begun)
    return min(times)


def merely_read(path: Path) -> None:
    """Read every record of an archive with fastwarc, content included."""
    with path.open("rb") as file:
        for record in ArchiveIterator(file, parse_http=False):
            record.reader.read()


def ingest(path: Path, kind: Literal["warc", "wat"], folder: str) -> list[pa.Table]:
    """Read a crawl into Parquet, as a task of the stage does; return the tables of pairs."""
    tables = []
    workspace = Workspace(root=folder)
    with path.open("rb") as file:
        for i, chunk in enumerate(read_crawl(file, kind, path.name, CHUNK_ROWS)):
            place = f"{folder}/{kind}"
            write_chunk(chunk, path.name, workspace=workspace, folder=place, name=f"{i}")
            tables.append(chunk[0])
    return tables


def pairs_of(tables: list[pa.Table]) -> Pairs:
    """Return address, caption and its source of every pair."""
    found: Pairs = Counter()
    for table in tables:
        columns = table.select(["url", "caption", "caption_source"]).columns
        found.update(zip(*(column.to_pylist() for column in columns), strict=True))
    return found


def pages_of(file: BinaryIO, share: int = 1) -> Iterator[tuple[str, bytes]]:
    """Yield address and HTML of one page in `share` of a WARC file, with warcio."""
    from warcio.archiveiterator import ArchiveIterator as PlainIterator

    number = 0
    for record in PlainIterator(file):
        if record.rec_type == "response":
            if number % share == 0:
                yield (
                    record.rec_headers.get_header("WARC-Target-URI"),
                    record.content_stream().read(),
                )
            number += 1


def plain_selectolax(path: Path) -> Pairs:
    """Find the pairs with warcio and selectolax."""
    found: Pairs = Counter()
    with path.open("rb") as file:
        for url, page in pages_of(file):
            rows = find_images(page, page_url=url, charset=None, offset=0)
            found.update(row[:3] for row in rows if isinstance(row, Reference))
    return found


def plain_soup(path: Path) -> Pairs:
    """Find the pairs of some pages with warcio and BeautifulSoup."""
    from bs4 import BeautifulSoup

    found: Pairs = Counter()
    with path.open("rb") as file:
        for url, page in pages_of(file, SOUP_SHARE):
            soup = BeautifulSoup(page, "lxml")
            base = soup.find("base", href=True)
            place = Place(choose_base(base["href"] if base else None, url), url, 0)
            for image in soup.find_all("img"):
                figure = image.find_parent("figure")
                caption = figure.find("figcaption") if figure else None
                text = " ".join(caption.get_text().split()) if caption else ""
                rows = refer_image(image.attrs, place, (), text)
                found.update(row[:3] for row in rows if isinstance(row, Reference))
            metas = [
                (str(meta.get("property") or meta.get("name") or "").lower(), meta["content"])
                for meta in soup.find_all("meta", content=True)
            ]
            graph = refer_open_graph(metas, place)
            found.update(row[:3] for row in graph if isinstance(row, Reference))
    return found


def listed_links(path: Path, load: Callable[[bytes], Any]) -> int:
    """Count the images that a WAT file lists, with fastwarc and a JSON parser."""
    count = 0
    with path.open("rb") as file:
        for record in ArchiveIterator(file, parse_http=False):
            block = record.reader.read()
            if block.startswith(b"{"):
                payload = load(block)["Envelope"]["Payload-Metadata"]
                html = payload.get("HTTP-Response-Metadata", {}).get("HTML-Metadata", {})
                count += sum(link["path"] == "IMG@/src" for link in html.get("Links", ()))
    return count


def json_parsers() -> dict[str, Callable[[bytes], Any]]:
    """Return the parsers that are installed, by name."""
    parsers: dict[str, Callable[[bytes], Any]] = {"json": json.loads, "orjson": orjson.loads}
    if importlib.util.find_spec("simdjson"):
        import simdjson

        # A new parser each time: elements keep theirs in use.
        parsers["simdjson"] = lambda block: simdjson.Parser().parse(block)
    if importlib.util.find_spec("msgspec"):
        parsers["msgspec, typed"] = _typed_msgspec()
    return parsers


def _typed_msgspec() -> Callable[[bytes], Any]:
    import msgspec

    link = msgspec.defstruct("Link", [("path", str, ""), ("url", str, ""), ("alt", str, "")])
    html = msgspec.defstruct("Html", [("Links", list[link], [])])  # type: ignore[valid-type]

    def inside(name: str, inner: type) -> type:
        fields = [("inner", inner | None, None)]
        return msgspec.defstruct(name[:3], fields, rename={"inner": name})

    response = inside("HTML-Metadata", html)
    payload = inside("HTTP-Response-Metadata", response)
    decoder = msgspec.json.Decoder(inside("Envelope", inside("Payload-Metadata", payload)))

    def load(block: bytes) -> Any:
        found = decoder.decode(block).inner.inner.inner
        links = found.inner.Links if found and found.inner else []
        rows = [{"path": one.path} for one in links]
        answer = {"HTTP-Response-Metadata": {"HTML-Metadata": {"Links": rows}}}
        return {"Envelope": {"Payload-Metadata": answer}}

    return load


def compare_warc(path: Path, size: int, pages: int, folder: str) -> None:
    """Print how long the ways to read a WARC file take, and whether they find the same."""
    bare = seconds(lambda: merely_read(path))
    ours = pairs_of(ingest(path, "warc", folder))
    taken = seconds(lambda: ingest(path, "warc", folder))
    print(
        f"WARC of {pages} pages, {size / 1e6:.1f} MB, {path.stat().st_size / 1e6:.1f} MB compressed"
    )
    print(f"fastwarc, records alone: {bare:.3f} s, {size / bare / 1e6:,.0f} MB/s")
    print(
        f"witmill, to Parquet: {taken:.3f} s, {pages / taken:,.0f} pages/s, "
        f"{size / taken / 1e6:,.0f} MB/s, {taken / bare:.2f} times the records alone"
    )
    if not importlib.util.find_spec("warcio"):
        return
    theirs = plain_selectolax(path)
    took = seconds(lambda: plain_selectolax(path), 2)
    same = "the same pairs" if theirs == ours else f"{(theirs - ours).total()} other pairs"
    print(f"warcio + selectolax: {took:.3f} s, {took / taken:.1f} times ours, {same}")
    if importlib.util.find_spec("bs4"):
        begun = time.process_time()
        some = plain_soup(path)
        took = (time.process_time() - begun) * SOUP_SHARE
        shared = (some & ours).total() / some.total()
        print(
            f"warcio + BeautifulSoup (lxml), one page in {SOUP_SHARE}: about {took:.1f} s for all, "
            f"{took / taken:.0f} times ours; {shared:.1%} of its pairs are ours"
        )


def compare_wat(path: Path, size: int, pages: int, folder: str) -> None:
    """Print how long the ways to read a WAT file take."""
    bare = seconds(lambda: merely_read(path))
    ours = pairs_of(ingest(path, "wat", folder))
    taken = seconds(lambda: ingest(path, "wat", folder))
    print(
        f"\nWAT of the same pages, {size / 1e6:.1f} MB, {path.stat().st_size / 1e6:.1f} MB compressed"
    )
    print(f"fastwarc, records alone: {bare:.4f} s, {size / bare / 1e6:,.0f} MB/s")
    print(
        f"witmill, to Parquet: {taken:.4f} s, {pages / taken:,.0f} pages/s, {ours.total():,} pairs, "
        f"{taken / bare:.2f} times the records alone"
    )
    for name, load in json_parsers().items():
        count = listed_links(path, load)
        took = seconds(lambda load=load: listed_links(path, load))
        print(
            f"fastwarc + {name}, images counted only ({count:,}): {took:.4f} s, {took / bare:.2f}"
        )


def main() -> None:
    """Build the files and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", type=Path, help="tar of HTML pages")
    parser.add_argument(
        "--copies", type=int, default=1, help="times that each page stands in the WAT"
    )
    arguments = parser.parse_args()
    pages: list[Page] = list(read_pages(arguments.pages))
    with tempfile.TemporaryDirectory() as folder:
        warc, wat = Path(folder, "pages.warc.gz"), Path(folder, "pages.wat.gz")
        size = write_archive(warc, [r for page in pages for r in warc_records(page)])
        compare_warc(warc, size, len(pages), folder)
        records = [r for page in pages for r in wat_records(page)]
        size = write_archive(wat, records, arguments.copies)
        compare_wat(wat, size, len(pages) * arguments.copies, folder)


if __name__ == "__main__":
    main()
