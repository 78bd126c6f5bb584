"""What everybody reads tar shards with reads ours."""

import io
import json
import subprocess
import tarfile
from pathlib import Path

import duckdb
import pytest
import webdataset
from PIL import Image

from pipeline.inputs.pairs import Reference
from pipeline.inputs.tar_shards import read_tar
from tests.pipeline.shards.corpora import EXTENSIONS, image, kept, pack, rows, size

# webdataset leaves its files to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    workspace = kept(tmp_path_factory.mktemp("readers"), 9, 8)
    pack(workspace, 7)
    return workspace


def test_webdataset_reads_them_by_a_range_in_braces(shards):
    pattern = shards.path("shard/{00000..00002}.tar")
    found = list(webdataset.WebDataset(pattern, shardshuffle=False))
    index = rows(shards)
    assert [s["__key__"] for s in found] == [row["key"] for row in index]
    assert [s["txt"].decode() for s in found] == [row["caption"] for row in index]
    assert all(len(s.keys() & set(EXTENSIONS)) == 1 for s in found)


def test_the_steps_that_open_clip_takes_give_pictures_and_texts(shards):
    pattern = shards.path("shard/{00000..00002}.tar")
    steps = webdataset.DataPipeline(
        webdataset.SimpleShardList(pattern),
        webdataset.tarfile_to_samples(),
        webdataset.select(lambda s: "txt" in s and s.keys() & {"png", "jpg", "jpeg", "webp"}),
        webdataset.decode("pilrgb"),
        webdataset.rename(image="jpg;png;jpeg;webp", text="txt"),
        webdataset.to_tuple("image", "text"),
    )
    found = list(steps)
    index = rows(shards)
    assert [text for _, text in found] == [row["caption"] for row in index]
    assert [picture.size for picture, _ in found] == [size(r["source_offset"]) for r in index]


def test_tarfile_reads_them(shards):
    found = []
    for path in sorted(Path(shards.path("shard")).glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                data = tar.extractfile(member).read()
                if member.name.endswith(".json"):
                    found.append(json.loads(data)["source_offset"])
                elif not member.name.endswith(".txt"):
                    Image.open(io.BytesIO(data)).verify()
    assert found == [row["source_offset"] for row in rows(shards)]


def test_the_tar_command_unpacks_them(shards, tmp_path):
    subprocess.run(["tar", "-xf", shards.path("shard/00001.tar"), "-C", tmp_path], check=True)
    for row in rows(shards)[7:14]:
        assert (tmp_path / row["image_member"]).read_bytes() == image(row["source_offset"])
        assert (tmp_path / f"{row['key']}.txt").read_text() == row["caption"]


def test_ingest_reads_back_the_pairs_that_went_in_less_white_space_around(shards):
    found = []
    for path in sorted(Path(shards.path("shard")).glob("*.tar")):
        with path.open("rb") as file:
            found += [pair for pair in read_tar(file) if isinstance(pair, Reference)]
    assert [(p.url, p.caption) for p in found] == [
        (r["url"], r["caption"].strip()) for r in rows(shards)
    ]


def test_the_indexes_are_read_as_those_of_img2dataset(shards):
    columns = "key, url, caption, status, error_message, width, height, original_width, original_height, sha256"
    query = f"SELECT {columns} FROM '{shards.path('shard')}/*.parquet' WHERE status = 'success'"
    found = duckdb.sql(query).fetchall()
    names = columns.split(", ")
    assert sorted(found) == sorted(tuple(row[n] for n in names) for row in rows(shards))
    stats = [json.loads(p.read_text()) for p in Path(shards.path("shard")).glob("*_stats.json")]
    assert sum(each["successes"] for each in stats) == len(found) == 17
