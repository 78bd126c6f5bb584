"""CIFAR-10 as a crawl would bring it: pictures on a web server, captions in a table, shards by the pipeline.

Captions are sentences about the picture's class, chosen by hash of the picture's name. Of CIFAR-10's
test set some pictures may be planted, with captions of their own class, to see what contamination does.
"""

import asyncio
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from benchmarks.image_server import Conversation
from dedup.calibration.edits import make_copy
from pipeline import plan as plans
from pipeline.pictures.images import decode
from pipeline.runtime.workspace import Workspace

ARCHIVE = "images/cifar10_jpg.tar.gz"
EVALSET = "cifar10"
PORT = 8431
"""Part of every address and so of every pair_id: the same port gives the same shards."""

TEMPLATES = (
    "a photo of {a}.",
    "a small picture of {a}",
    "photograph of the {it} we saw yesterday",
    "this is {a}",
    "a rather blurry photo that shows {a}.",
    "one {it} in the middle of the picture",
    "close-up of {a} in daylight",
    "my favourite {it}, seen from the side",
    "the {it} from our collection of pictures",
    "{a} against a plain background",
    "here you can see {a} very well",
    "an old snapshot of some {it}",
    "there is {a} in this picture",
    "a low resolution image of {a}",
    "a good photo of the {it}",
    "what a beautiful {it} this is",
)


@dataclass(frozen=True, kw_only=True)
class Planting:
    """Which test pictures to hide among the corpus pictures.

    Attributes:
        share: of the test pictures; which ones is a matter of their names' hashes.
        edits: names of `dedup.calibration.edits`, in turn; none: the file as it is.
    """

    share: float
    edits: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What `build_corpus` made.

    Attributes:
        workspace: finished up to "shard".
        evalsets: TOML file that names the test set as EVALSET.
        planted: items of the test set that stand in the corpus, and how each was edited.
    """

    workspace: Workspace
    evalsets: Path
    planted: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Picture:
    name: str
    data: bytes

    @property
    def label(self) -> str:
        return self.name.split("/")[1]


def build_corpus(
    data: Path,
    folder: Path,
    *,
    pictures: int = 50_000,
    planted: Planting | None = None,
    drop_overlaps: bool = True,
    workers: int = 2,
    port: int = PORT,
) -> Corpus:
    """Serve CIFAR-10 on this machine and run every stage from "ingest" to "shard" on it.

    Run again with the same arguments, it does what is missing.

    Args:
        data: folder of the real data, with ARCHIVE below it.
        folder: gets the workspace, the table of pairs and the TOML file.
        pictures: so many of the training pictures, those of the smallest hashes.
        drop_overlaps: keep pictures of the test set, and those that differ little from one, out of the
            shards; else they are reported alone. CIFAR-10 has such by itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    evalsets = folder / "evalsets.toml"
    evalsets.write_text(
        f'[{EVALSET}]\npath = "{(data / ARCHIVE).resolve()}"\nsplit = "test"\n'
        'prompts = "cifar10"\nmax_distance = 47\n'
    )
    chosen = sorted(_read(data / ARCHIVE, "train/"), key=lambda p: shuffled(p.name))[:pictures]
    hidden = {p.name: (p, edit) for p, edit in _hidden(data / ARCHIVE, planted)}
    served = chosen + [_edited(picture, edit) for picture, edit in hidden.values()]
    table = pa.table(
        {
            "url": [f"http://127.0.0.1:{port}/{i}.jpg" for i in range(len(served))],
            "caption": [caption_of(picture.name, picture.label) for picture in served],
        }
    )
    pq.write_table(table, folder / "pairs.parquet")
    plan = plans.make_plan(
        {
            "workspace": str(folder / "workspace"),
            "workers": workers,
            "ingest": {"inputs": [str(folder / "pairs.parquet")]},
            # Each sentence stands for hundreds of pictures here.
            "captions": {"disabled": ["boilerplate"]},
            "download": {
                "allow_addresses": ["127.0.0.1/32"],
                "per_host": 32,
                "threads": 32,
                "per_host_rate": 0,
            },
            "dedup": {"evalsets": str(evalsets), "drop_overlaps": drop_overlaps},
        },
        source="benchmarks/cifar10_corpus.py",
    )
    with _serving([picture.data for picture in served], port):
        plans.run_plan(plan, last="shard")
    return Corpus(
        workspace=Workspace(root=plan.general.workspace),
        evalsets=evalsets,
        planted={name: edit for name, (_, edit) in hidden.items()},
    )


def caption_of(name: str, label: str) -> str:
    """Return a sentence about `label`, the same for the same name."""
    template = TEMPLATES[shuffled(f"{name} caption") % len(TEMPLATES)]
    return template.format(it=label, a=f"{'an' if label[0] in 'aeiou' else 'a'} {label}")


def shuffled(name: str) -> int:
    """Return a number by which to put names into an order of no meaning."""
    return xxhash.xxh3_64_intdigest(name.encode())


def _read(archive: Path, prefix: str) -> Iterator[_Picture]:
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name.startswith(prefix) and (file := tar.extractfile(member)):
                yield _Picture(name=member.name, data=file.read())


def _hidden(archive: Path, planted: Planting | None) -> Iterator[tuple[_Picture, str]]:
    if planted is None:
        return
    pictures = sorted(_read(archive, "test/"), key=lambda picture: shuffled(picture.name))
    for i, picture in enumerate(pictures[: round(planted.share * len(pictures))]):
        yield picture, planted.edits[i % len(planted.edits)] if planted.edits else ""


def _edited(picture: _Picture, edit: str) -> _Picture:
    if not edit:
        return picture
    copy = make_copy(edit, decode(picture.data).rgb, picture.name)
    return _Picture(name=picture.name, data=copy)


@contextmanager
def _serving(bodies: Sequence[bytes], port: int) -> Iterator[None]:
    """Answer /I.jpg on 127.0.0.1 with body I while the block runs."""
    head = "HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n"
    answers = [head.format(len(body)).encode() + body for body in bodies]
    loop = asyncio.new_event_loop()

    server = loop.run_until_complete(
        loop.create_server(lambda: Conversation(answers), "127.0.0.1", port, backlog=1024)
    )
    thread = Thread(target=loop.run_forever)
    thread.start()
    try:
        yield
    finally:
        server.close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
