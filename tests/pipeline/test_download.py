import hashlib
import itertools
import os
import re
import resource
import signal
import socket
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline import download, ingest, schemas
from pipeline.catalog import query_table
from pipeline.download import DownloadConfig
from pipeline.downloading.turns import Turns
from pipeline.downloading.via_img2dataset import Refusal, download_all
from pipeline.errors import ConfigError, InputError, StorageError, TaskFailed
from pipeline.ingest import IngestConfig
from pipeline.pictures import images
from pipeline.pictures.images import decode
from pipeline.runtime.executor import InlineExecutor
from pipeline.runtime.settings import read_settings
from pipeline.runtime.workspace import Workspace
from pipeline.status import print_status
from tests.pipeline import archives
from tests.pipeline.download_runs import (
    balanced,
    downloaded,
    encoded,
    files_of,
    noise,
    pairs,
    png,
    serve,
    settings,
    stored_bytes,
)


def test_an_image_is_measured_and_stored(web, tmp_path):
    photograph = encoded(noise(600, 400), "JPEG")
    web.files["/a.jpg"] = photograph
    workspace = balanced(tmp_path, pairs([f"{web.url}/a.jpg"], ["a dog"]))
    [row], drops = downloaded(workspace, settings())
    assert not drops
    assert (row["caption"], row["selected_by"]) == ("a dog", [2])
    assert row["image_sha256"] == hashlib.sha256(photograph).hexdigest()
    assert row["image_bytes"] == len(photograph)
    assert (row["image_format"], row["width"], row["height"]) == ("jpeg", 600, 400)
    rgb = decode(photograph).rgb
    assert row["pixel_hash"] == images.pixel_hash(rgb)
    assert (row["pdq"], row["pdq_quality"]) == images.pdq(rgb)
    stored = decode(stored_bytes(workspace, row))
    assert (stored.format, stored.width, stored.height) == ("jpeg", 384, 256)


def test_every_pair_ends_as_a_row_or_a_drop(web, tmp_path):
    web.files.update(
        {
            "/good.png": encoded(noise(30, 30), "PNG"),
            "/page": b"<html>gone</html>",
            "/cut.png": encoded(noise(90, 90), "PNG")[:-4000],
            "/empty.jpg": b"",
            "/private.jpg": encoded(noise(30, 30), "JPEG"),
            "/bomb.webp": b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + b"\xff\x3f\0\xff\x3f\0",
            "/thin.png": encoded(noise(300, 20), "PNG"),
            "/tiny.png": encoded(noise(8, 8), "PNG"),
        }
    )
    expected = {
        f"{web.url}/good.png": None,
        f"{web.url}/page": "not_an_image",
        f"{web.url}/cut.png": "truncated_image",
        f"{web.url}/empty.jpg": "empty",
        f"{web.url}/missing.jpg": "http_404",
        f"{web.url}/private.jpg": "robots_tag",
        f"{web.url}/bomb.webp": "too_many_pixels",
        f"{web.url}/thin.png": "aspect",
        f"{web.url}/tiny.png": "too_small",
        "http://nothing.invalid/x.jpg": "dns",
        "http://10.0.0.1/x.jpg": "private_address",
        "ftp://example.com/x.jpg": "bad_url",
    }
    table = pairs(list(expected))
    rows, drops = downloaded(balanced(tmp_path, table), settings(min_side=10, max_aspect=3))
    reasons = {drop["pair_id"]: drop["reason"] for drop in drops}
    kept = {row["pair_id"]: None for row in rows}
    pair_ids = table.column("pair_id").to_pylist()
    assert {**kept, **reasons} == dict(zip(pair_ids, expected.values(), strict=True))
    assert [drop["pair_id"] for drop in drops] == [p for p in pair_ids if p in reasons]
    for reason in reasons.values():
        assert re.sub(r"http_\d{3}", "http_NNN", reason) in download.REASONS


def test_two_runs_give_the_same_bytes_whatever_the_threads(web, tmp_path):
    for i in range(40):
        kind = ("JPEG", "PNG", "GIF")[i % 3]
        web.files[f"/{i}"] = encoded(noise(300 + i, 280, i), kind)
    web.files["/bad"] = b"junk"
    urls = [f"{web.url}/{i}" for i in range(45)] + [f"{web.url}/bad"]
    files = []
    for threads in (1, 16):
        workspace = balanced(tmp_path / str(threads), pairs(urls[:20]), pairs(urls[20:]))
        download.run(settings(threads=threads, per_host=8), workspace, InlineExecutor())
        files.append(files_of(workspace))
    assert list(files[0]) == [
        "00000.parquet",
        "00001.parquet",
        "drops/00001.parquet",
        "hosts/00000.parquet",
        "hosts/00001.parquet",
        "images/00000.tar",
        "images/00001.tar",
        "worst_hosts/00000.parquet",
    ]
    assert files[0] == files[1]


def test_a_url_is_asked_once_however_many_captions_it_has(web, tmp_path):
    web.files["/a.png"] = png()
    urls = [f"{web.url}/a.png", f"{web.url}/b.png"] * 3
    workspace = balanced(tmp_path, pairs(urls))
    rows, drops = downloaded(workspace, settings())
    assert sorted(web.asked) == ["/a.png", "/b.png"]
    assert (len(rows), len(drops)) == (3, 3)
    assert len({(row["image_file"], row["image_offset"]) for row in rows}) == 1


def test_the_tar_holds_the_images_in_the_order_of_their_pairs(web, tmp_path):
    for i in range(12):
        web.files[f"/{i}"] = png(i)
    workspace = balanced(tmp_path, pairs([f"{web.url}/{i}" for i in range(12)]))
    rows, _ = downloaded(workspace, settings())
    with tarfile.open(workspace.path("download/images/00000.tar")) as tar:
        found = [(m.name, m.offset_data, m.size) for m in tar]
    expected = sorted((f"{r['pair_id']}.png", r["image_offset"], r["image_length"]) for r in rows)
    assert found == expected
    for row in rows:
        assert hashlib.sha256(stored_bytes(workspace, row)).hexdigest() == row["image_sha256"]


def test_an_empty_part_and_one_without_a_single_image_are_parts_too(tmp_path):
    workspace = balanced(tmp_path, pairs([]), pairs(["http://nothing.invalid/"]))
    rows, drops = downloaded(workspace, settings())
    assert rows == []
    assert [drop["reason"] for drop in drops] == ["dns"]
    with tarfile.open(workspace.path("download/images/00001.tar")) as tar:
        assert tar.getnames() == []


def test_a_finished_download_asks_nobody_again(web, tmp_path):
    web.files["/a.png"] = png()
    workspace = balanced(tmp_path, pairs([f"{web.url}/a.png"]))
    for _ in range(2):
        download.run(settings(), workspace, InlineExecutor())
    assert web.asked == ["/a.png"]


def test_another_contact_does_not_fetch_everything_again(web, tmp_path):
    web.files["/a.png"] = png()
    workspace = balanced(tmp_path, pairs([f"{web.url}/a.png"]))
    for contact in ("", "mail@example.org"):
        download.run(settings(contact=contact), workspace, InlineExecutor())
    assert web.asked == ["/a.png"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"max_aspect": 0.5},
            "download.max_aspect is 0.5, expected 0, for any shape, or 1 and more",
        ),
        ({"allow_addresses": ["10.0.0.0/33"]}, "expected address ranges such as 10.1.0.0/16"),
        ({"user_agent": "two\r\nlines"}, "download.user_agent is"),
        ({"resize_mode": "stretch"}, "download.resize_mode is 'stretch', expected 'keep_ratio'"),
        ({"threads": 0}, "download.threads is 0"),
        ({"contact": "two\r\nlines"}, "download.contact is"),
    ],
)
def test_a_wrong_setting_is_named(given, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_settings(DownloadConfig, given, where="download")


def test_the_contact_is_part_of_the_user_agent():
    config = settings(contact="https://example.org/crawl")
    assert config.full_user_agent == "witmill/0.1 (+https://example.org/crawl)"
    assert settings().full_user_agent == "witmill/0.1"


def collect(count, **functions):
    results = {}
    given = {
        "fetch": lambda position: str(position).encode(),
        "process": lambda position, data: (position, data),
        "deliver": results.__setitem__,
    }
    turns = Turns(np.arange(count) % 7, 2)
    download_all(turns, threads=3, **{**given, **functions})
    return results


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 101])
def test_every_url_is_delivered_once_under_its_position(count, capfd):
    assert collect(count) == {i: (i, str(i).encode()) for i in range(count)}
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["fetch", "process", "deliver"])
def test_a_fault_of_our_own_is_raised_and_not_printed_away(name, capfd):
    def fault(*_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        collect(60, **{name: fault})
    assert capfd.readouterr() == ("", "")


def test_an_interrupt_ends_a_part_soon_and_asks_for_nothing_more():
    asked = []

    def interrupt(position):
        asked.append(position)
        if len(asked) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        return b""

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        collect(5000, fetch=interrupt)
    assert time.monotonic() - begun < 5
    assert len(asked) < 500


def test_img2datasets_own_fetch_is_in_place_again_afterwards():
    collect(1)
    module = sys.modules["img2dataset.downloader"]
    assert module.download_image_with_retry.__module__ == "img2dataset.downloader"


@pytest.mark.parametrize("detail", [None, "", "a: b", "404"])
def test_a_refusal_survives_being_a_string(detail):
    refusal = Refusal("reason", detail)
    assert Refusal.parse(str(refusal)) == refusal


@pytest.fixture
def small_files():
    """Let no file grow beyond 100,000 bytes, which looks as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_ends_the_stage_with_an_error(web, tmp_path):
    web.files["/a.png"] = png(side=250)
    workspace = balanced(tmp_path, pairs([f"{web.url}/a.png"]))
    with pytest.raises(TaskFailed, match="File too large"):
        download.run(settings(), workspace, InlineExecutor())
    assert workspace.manifest("download") is None


PAGE = "<img src=/{0}.png alt='picture {0}'><img src=/gone.png alt='gone'>"


def ingested(root: Path, archive: Path, count: int = 3) -> Workspace:
    """Ingest an archive of pages with their pictures, and keep every pair up to "balance"."""
    records = []
    for i in range(count):
        url = f"http://h.example/{i}.png"
        page = PAGE.format(i).encode()
        records.append(archives.response(page, url=f"http://h.example/{i}.html"))
        records.append(
            archives.response(encoded(noise(30, 30, i), "PNG"), url=url, kind="image/png")
        )
    archive.parent.mkdir(exist_ok=True, parents=True)
    archive.write_bytes(archives.members(*records))
    workspace = Workspace(root=str(root))
    manifest = ingest.run(IngestConfig(inputs=(str(archive),)), workspace, InlineExecutor())
    [part] = manifest.parts
    table = workspace.read(part, schemas.PAIRS)
    given = pairs(table.column("url").to_pylist(), table.column("caption").to_pylist())
    balanced(root, given)
    return workspace


def captured(**given) -> DownloadConfig:
    return settings(images_from="captures", **given)


def test_an_archive_is_enough(tmp_path):
    workspace = ingested(tmp_path / "w", tmp_path / "a.warc.gz")
    rows, drops = downloaded(workspace, captured())
    assert sorted(row["caption"] for row in rows) == ["picture 0", "picture 1", "picture 2"]
    for row in rows:
        number = int(row["caption"][-1])
        assert stored_bytes(workspace, row) == encoded(noise(30, 30, number), "PNG")
    assert {drop["reason"] for drop in drops} == {"not_captured"}
    assert len(drops) == 1


def test_the_rules_of_size_hold_for_captures_too(tmp_path):
    workspace = ingested(tmp_path / "w", tmp_path / "a.warc.gz")
    _, drops = downloaded(workspace, captured(min_side=31))
    assert sorted(drop["reason"] for drop in drops) == ["not_captured", *["too_small"] * 3]


def test_the_web_is_asked_for_the_rest(tmp_path):
    workspace = ingested(tmp_path / "w", tmp_path / "a.warc.gz")
    rows, drops = downloaded(workspace, settings(images_from="both"))
    assert len(rows) == 3
    assert [drop["reason"] for drop in drops] == ["dns"]


def test_archives_that_have_moved_are_named(tmp_path):
    workspace = ingested(tmp_path / "w", tmp_path / "here/a.warc.gz")
    (tmp_path / "here").rename(tmp_path / "there")
    with pytest.raises(StorageError, match=r"does not exist.*--archives names where"):
        downloaded(workspace, captured())
    first, _ = downloaded(workspace, captured(archives=str(tmp_path / "there")))
    assert len(first) == 3
    again, _ = downloaded(workspace, captured(archives=f"{tmp_path}/there/"))
    assert again == first


def test_a_run_without_captures_says_so(tmp_path):
    (tmp_path / "t.csv").write_text("url,text\nhttp://h.example/a,A dog\n")
    workspace = Workspace(root=str(tmp_path / "w"))
    config = IngestConfig(inputs=(str(tmp_path / "t.csv"),))
    ingest.run(config, workspace, InlineExecutor())
    balanced(tmp_path / "w", pairs(["http://nothing.invalid/a"]))
    with pytest.raises(InputError, match="holds no images; expected WARC files with images"):
        downloaded(workspace, captured())
    _, drops = downloaded(workspace, settings(images_from="both"))
    assert [drop["reason"] for drop in drops] == ["dns"]


def test_captures_give_the_same_bytes_whatever_the_threads(tmp_path):
    digests = []
    for threads in (1, 16):
        workspace = ingested(tmp_path / str(threads), tmp_path / "a.warc.gz", count=30)
        downloaded(workspace, captured(threads=threads))
        tar = Path(workspace.path("download/images/00000.tar")).read_bytes()
        digests.append(hashlib.sha256(tar).hexdigest())
    assert digests[0] == digests[1]


def test_a_shard_of_img2dataset_needs_no_network(shared_data, tmp_path):
    workspace = Workspace(root=str(tmp_path / "w"))
    config = IngestConfig(inputs=(str(shared_data / "images/cc12m-train-0000.tar"),))
    [part] = ingest.run(config, workspace, InlineExecutor()).parts
    table = workspace.read(part, schemas.PAIRS)
    balanced(
        tmp_path / "w", pairs(table.column("url").to_pylist(), table.column("caption").to_pylist())
    )
    rows, drops = downloaded(workspace, captured())
    assert (len(rows), drops) == (32, [])


def many_hosts(port: int, count: int) -> list[str]:
    return [f"http://h{i}.localhost:{port}/{i}" for i in range(count)]


def test_an_outage_stops_the_stage_and_what_it_spoilt_is_asked_again(tmp_path, free_port):
    urls = many_hosts(free_port, 500)
    workspace = balanced(tmp_path, pairs(urls))
    with serve(free_port) as web:
        web.files.update({f"/{i}": png(i) for i in range(500)})
        plain, asked = web.RequestHandlerClass.do_GET, itertools.count()

        def answer(handler):
            if next(asked) < 150:
                plain(handler)
            else:
                handler.connection.close()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(web.RequestHandlerClass, "do_GET", answer)
            with pytest.raises(TaskFailed, match="as if the network were down; nothing of that is"):
                downloaded(workspace, settings())
        first = set(web.asked)
    assert len(first) == 150
    with serve(free_port) as web:
        web.files.update({f"/{i}": png(i) for i in range(500)})
        rows, drops = downloaded(workspace, settings())
        assert (len(rows), drops) == (500, [])
        assert not first & set(web.asked)


def test_hosts_that_cannot_be_reached_are_dropped_where_they_are_few(tmp_path, free_port):
    urls = [f"{url}?{i}" for i in range(3) for url in many_hosts(free_port, 150)]
    rows, drops = downloaded(balanced(tmp_path, pairs(urls)), settings(threads=32))
    assert (rows, {drop["reason"] for drop in drops}) == ([], {"connection"})
    assert len(drops) == 450


def test_an_outage_begins_no_further_part(tmp_path, free_port):
    parts = [pairs(many_hosts(free_port, 250)) for _ in range(4)]
    with pytest.raises(TaskFailed, match=r"^1 of 1 tasks failed \(download 0\): of the last 200"):
        downloaded(balanced(tmp_path, *parts), settings(threads=32))


def test_the_limit_may_be_lifted(tmp_path, free_port):
    workspace = balanced(tmp_path, pairs(many_hosts(free_port, 250)))
    _, drops = downloaded(workspace, settings(threads=32, max_unreachable=1.0))
    assert len(drops) == 250


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_hosts_have_a_view_and_a_line(web, tmp_path, capsys):
    web.files.update({"/1": png(1), "/2": png(2)})
    urls = [f"{web.url}/{i}" for i in (1, 2, 3, 3)]
    gone = [f"http://gone.invalid/{i}" for i in range(3)]
    parts = [pairs(urls + gone[:2]), pairs([*urls[:1], *gone[2:], "ftp://h.example/"], list("abc"))]
    workspace = balanced(tmp_path, *parts)
    downloaded(workspace, settings())
    found = query_table(workspace, "SELECT * FROM download_hosts ORDER BY host").to_pylist()
    size = len(png(1)) * 2 + len(png(2))
    assert [tuple(row.values()) for row in found] == [
        ("127.0.0.1", 4, 3, 5, 3, "http_404", True, True, size),
        ("gone.invalid", 3, 0, 3, 0, "dns", False, True, 0),
        ("h.example", 1, 0, 1, 0, "bad_url", False, False, 0),
    ]
    print_status(workspace)
    text = capsys.readouterr().out
    assert "1 of 2 hosts answered (50.0%)" in text
    assert "most pairs lost at gone.invalid 3 of 3 (dns), 127.0.0.1 2 of 5 (http_404)" in text


def test_robots_txt_is_read_once_and_heeded(web, tmp_path):
    web.files.update({f"/{i}": png(i) for i in range(6)})
    web.files["/robots.txt"] = b"User-agent: *\nDisallow: /3\n"
    parts = [pairs([f"{web.url}/{i}" for i in range(start, 6, 3)]) for start in range(3)]
    workspace = balanced(tmp_path, *parts)
    rows, drops = downloaded(workspace, settings(robots="respect"))
    assert (len(rows), [drop["reason"] for drop in drops]) == (5, ["robots_txt"])
    assert web.asked.count("/robots.txt") == 1
    assert workspace.finished("download").counters["robots_read"] == 1


def test_pictures_on_the_block_list_are_dropped(web, tmp_path):
    web.files.update({f"/{i}": png(i) for i in range(3)})
    listed = tmp_path / "blocked.txt"
    listed.write_text(f"sha256:{hashlib.sha256(png(1)).hexdigest()}\n")
    workspace = balanced(tmp_path / "w", pairs([f"{web.url}/{i}" for i in range(3)]))
    rows, drops = downloaded(workspace, settings(blocklist=str(listed)))
    assert (len(rows), [drop["reason"] for drop in drops]) == (2, ["blocked"])
    listed.write_text("")
    rows, drops = downloaded(workspace, settings(blocklist=str(listed)))
    assert (len(rows), drops) == (3, [])


def test_boxes_of_all_pairs_of_a_picture_are_blurred(web, tmp_path):
    web.files["/a"] = png(side=100)
    table = pairs([f"{web.url}/a"] * 3)
    boxes = [[[0.0, 0.0, 0.3, 0.3]], None, [[0.7, 0.7, 1.0, 1.0]]]
    place = table.schema.get_field_index("blur_boxes")
    column = pa.array(boxes, table.schema.field(place).type)
    table = table.set_column(place, table.schema.field(place), column)
    workspace = balanced(tmp_path, table)
    rows, _ = downloaded(workspace, settings(encode_format="png"))
    stored = decode(stored_bytes(workspace, rows[0])).rgb.astype(int)
    changed = np.abs(stored - decode(png(side=100)).rgb).mean(axis=2)
    assert changed[5:20, 5:20].mean() > 20 < changed[80:95, 80:95].mean()
    assert changed[45:55, 45:55].max() == 0
    assert rows[0]["image_sha256"] == hashlib.sha256(png(side=100)).hexdigest()
