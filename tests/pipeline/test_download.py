import hashlib
import io
import os
import re
import signal
import sys
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from PIL import Image

from pipeline import download, ingest, schemas
from pipeline.download import DownloadConfig
from pipeline.errors import ConfigError, InputError, StorageError, TaskFailed
from pipeline.ingest import IngestConfig
from pipeline.pictures import images
from pipeline.pictures.images import ImageRefused, decode
from pipeline.pictures.stored import examine, fit
from pipeline.pictures.via_img2dataset import Refusal, download_all
from pipeline.runtime.executor import InlineExecutor
from pipeline.runtime.settings import Settings, read_settings
from pipeline.runtime.stage import begin
from pipeline.runtime.workspace import Workspace
from tests.pipeline import archives


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def encoded(rgb: np.ndarray, kind: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, kind, **options)
    return file.getvalue()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        with self.server.lock:
            self.server.asked.append(self.path)
        body = self.server.files.get(self.path)
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Length", str(len(body or b"")))
        if self.path == "/private.jpg":
            self.send_header("X-Robots-Tag", "img2dataset: noai")
        self.end_headers()
        self.wfile.write(body or b"")


@pytest.fixture
def web():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.lock, server.asked, server.files = threading.Lock(), [], {}
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def pairs(urls: list[str], captions: list[str] | None = None) -> pa.Table:
    captions = captions or [f"caption {i}" for i in range(len(urls))]
    rows = [
        {
            "pair_id": xxhash.xxh3_128_hexdigest(f"{url}\0{caption}".encode()),
            "url": url,
            "caption": caption,
            "caption_source": "alt",
            "page_url": None,
            "source": "a.warc",
            "source_offset": i,
            "query_ids": [1, 2],
            "language": "en",
            "language_probability": 0.9,
            "selected_by": [2],
        }
        for i, (url, caption) in enumerate(zip(urls, captions, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=schemas.BALANCED)


def balanced(root: Path, *parts: pa.Table) -> Workspace:
    workspace = Workspace(root=str(root))
    stage = begin("balance", Settings(), workspace)
    nothing = schemas.DROPS.empty_table()
    stage.finish(
        [
            stage.output(i).write(
                rows_in=part.num_rows, kept=part, schema=schemas.BALANCED, drops=nothing
            )
            for i, part in enumerate(parts)
        ]
    )
    return workspace


def settings(**given) -> DownloadConfig:
    return DownloadConfig(**{"threads": 8, "allow_addresses": ("127.0.0.0/8",), **given})


def downloaded(workspace: Workspace, config: DownloadConfig) -> tuple[list[dict], list[dict]]:
    manifest = download.run(config, workspace, InlineExecutor())
    tables = [
        [
            row
            for part in manifest.tables.get(name, [])
            for row in pq.read_table(workspace.path(part.path), schema=schema).to_pylist()
        ]
        for name, schema in (("main", schemas.DOWNLOADED), ("drops", schemas.DROPS))
    ]
    return tables[0], tables[1]


def stored_bytes(workspace: Workspace, row: dict) -> bytes:
    data = Path(workspace.path(row["image_file"])).read_bytes()
    return data[row["image_offset"] : row["image_offset"] + row["image_length"]]


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
        folder = Path(workspace.path("download"))
        files.append(
            {
                str(f.relative_to(folder)): f.read_bytes()
                for f in sorted(folder.rglob("*"))
                if f.suffix in (".tar", ".parquet")
            }
        )
    assert list(files[0]) == [
        "00000.parquet",
        "00001.parquet",
        "drops/00001.parquet",
        "images/00000.tar",
        "images/00001.tar",
    ]
    assert files[0] == files[1]


def test_a_url_is_asked_once_however_many_captions_it_has(web, tmp_path):
    web.files["/a.png"] = encoded(noise(20, 20), "PNG")
    urls = [f"{web.url}/a.png", f"{web.url}/b.png"] * 3
    workspace = balanced(tmp_path, pairs(urls))
    rows, drops = downloaded(workspace, settings())
    assert sorted(web.asked) == ["/a.png", "/b.png"]
    assert (len(rows), len(drops)) == (3, 3)
    assert len({(row["image_file"], row["image_offset"]) for row in rows}) == 1


def test_the_tar_holds_the_images_in_the_order_of_their_pairs(web, tmp_path):
    for i in range(12):
        web.files[f"/{i}"] = encoded(noise(20, 20, i), "PNG")
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
    web.files["/a.png"] = encoded(noise(20, 20), "PNG")
    workspace = balanced(tmp_path, pairs([f"{web.url}/a.png"]))
    for _ in range(2):
        download.run(settings(), workspace, InlineExecutor())
    assert web.asked == ["/a.png"]


def test_another_contact_does_not_fetch_everything_again(web, tmp_path):
    web.files["/a.png"] = encoded(noise(20, 20), "PNG")
    workspace = balanced(tmp_path, pairs([f"{web.url}/a.png"]))
    for contact in ("", "mail@example.org"):
        download.run(settings(contact=contact), workspace, InlineExecutor())
    assert web.asked == ["/a.png"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_bytes_that_fit_are_kept_as_they_came(kind):
    data = encoded(noise(28, 28), kind)
    stored = examine(data, settings())
    assert stored.data == data
    assert stored.extension == {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}[kind]


def slope(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Something that JPEG hardly changes."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 5, y * 5, x + y + seed], axis=2).astype(np.uint8)


def transparent() -> bytes:
    return encoded(np.zeros((20, 20, 4), np.uint8), "PNG")


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(slope(30, 20), "JPEG", exif=exif)


def animated() -> bytes:
    file = io.BytesIO()
    frames = [Image.fromarray(slope(20, 20, seed)) for seed in (0, 100)]
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:])
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        transparent(),
        turned(),
        animated(),
        encoded(slope(20, 20), "GIF"),
        encoded(slope(20, 20), "BMP"),
        encoded(slope(20, 20)[:, :, 0].astype(np.uint16) * 256, "PNG"),
        encoded(slope(20, 20), "PNG") + bytes(100_000),
    ],
)
def test_what_another_reader_might_show_otherwise_is_encoded_anew(data):
    stored = examine(data, settings())
    assert stored.extension == "jpg"
    picture = decode(stored.data)
    assert picture.is_plain
    expected = decode(data)
    assert picture.rgb.shape == expected.rgb.shape
    assert np.abs(picture.rgb.astype(int) - expected.rgb).mean() < 4


def test_the_size_as_fetched_is_what_rules_apply_to():
    data = encoded(noise(900, 300), "JPEG")
    config = settings(min_side=300, max_aspect=3, image_size=64)
    assert examine(data, config).measured.width == 900
    for changed, reason in (({"min_side": 301}, "too_small"), ({"max_aspect": 2.99}, "aspect")):
        with pytest.raises(ImageRefused) as refused:
            examine(data, config.model_copy(update=changed))
        assert (refused.value.reason, refused.value.detail) == (reason, "900x300")


@pytest.mark.parametrize(
    ("mode", "large", "elongated", "small"),
    [
        ("keep_ratio", (96, 64), (640, 10), (20, 10)),
        ("keep_ratio_largest", (64, 43), (64, 1), (20, 10)),
        ("center_crop", (64, 64), (64, 10), (20, 10)),
        ("border", (64, 64), (64, 64), (64, 64)),
        ("no", (300, 200), (640, 10), (20, 10)),
    ],
)
def test_a_resize_mode_gives_the_size_it_names(mode, large, elongated, small):
    for given, expected in (((300, 200), large), ((640, 10), elongated), ((20, 10), small)):
        height, width = fit(noise(*given), mode, 64).shape[:2]
        assert (width, height) == expected


def test_a_border_is_white_and_the_picture_in_its_middle():
    framed = fit(np.zeros((10, 20, 3), np.uint8), "border", 40)
    assert framed[15:25, 10:30].max() == 0
    assert framed.sum() == 255 * 3 * (40 * 40 - 200)


def test_a_crop_takes_the_middle():
    rgb = np.zeros((50, 150, 3), np.uint8)
    rgb[:, 50:100] = 200
    assert fit(rgb, "center_crop", 50).min() == 200


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


def collect(urls, **functions):
    results = {}
    given = {"fetch": str.encode, "process": bytes.decode, "deliver": results.__setitem__}
    download_all(urls, threads=3, **{**given, **functions})
    return results


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 101])
def test_every_url_is_delivered_once_under_its_position(count, capfd):
    urls = [f"u{i}" for i in range(count)]
    assert collect(urls) == dict(enumerate(urls))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["fetch", "process", "deliver"])
def test_a_fault_of_our_own_is_raised_and_not_printed_away(name, capfd):
    def fault(*_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        collect(["a", "b", "c"] * 20, **{name: fault})
    assert capfd.readouterr() == ("", "")


def test_an_interrupt_ends_a_part_soon_and_asks_for_nothing_more():
    asked = []

    def interrupt(url):
        asked.append(url)
        if len(asked) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        return b""

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        collect([f"u{i}" for i in range(5000)], fetch=interrupt)
    assert time.monotonic() - begun < 5
    assert len(asked) < 500


def test_img2datasets_own_fetch_is_in_place_again_afterwards():
    collect(["a"])
    module = sys.modules["img2dataset.downloader"]
    assert module.download_image_with_retry.__module__ == "img2dataset.downloader"


@pytest.mark.parametrize("detail", [None, "", "a: b", "404"])
def test_a_refusal_survives_being_a_string(detail):
    refusal = Refusal("reason", detail)
    assert Refusal.parse(str(refusal)) == refusal


def test_a_full_disk_ends_the_stage_with_an_error(web, tmp_path, monkeypatch):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(28, "No space left on device")

    web.files["/a.png"] = encoded(noise(20, 20), "PNG")
    workspace = balanced(tmp_path, pairs([f"{web.url}/a.png"]))
    monkeypatch.setattr("tempfile.TemporaryFile", Full)
    with pytest.raises(TaskFailed, match="No space left"):
        download.run(settings(), workspace, InlineExecutor())


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
