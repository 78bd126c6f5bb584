import gzip
import html
import http.client
import json
import socket
import ssl
import time
import tomllib
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from PIL import Image

from pipeline.errors import ConfigError, InputError
from pipeline.miniature_web import (
    SITE_PORT,
    Behaviour,
    MiniatureWeb,
    read_behaviours,
    read_files,
    serve,
)

WEB = Path(__file__).parents[2] / "examples" / "web"
PLANTED = json.loads((WEB / "planted.json").read_text(encoding="utf-8"))
NOT_SERVED = {"no_such_host", "closed_port", "private_address", "broken_url", "no_tls"}
NO_FILE = {
    "not_found": 404,
    "gone": 410,
    "forbidden": 403,
    "too_many_requests": 429,
    "server_error": 500,
    "unavailable": 503,
    "redirect_works": 301,
    "redirect_loop": 302,
    "redirect_private": 302,
    "redirect_scheme": 302,
}
NO_ANSWER = {"hang_up", "not_http", "cut_off", "too_big", "too_big_undeclared", "slow"}


@pytest.fixture(scope="module")
def web() -> Iterator[MiniatureWeb]:
    with serve(WEB, 0) as running:
        yield running


def ask(
    web: MiniatureWeb, url: str, method: str = "GET"
) -> tuple[http.client.HTTPResponse, http.client.HTTPConnection]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=10)
    connection.request(method, parts.path, headers={"Host": f"{parts.hostname}:{web.port}"})
    try:
        return connection.getresponse(), connection
    except http.client.HTTPException:
        connection.close()
        raise


def get(web: MiniatureWeb, url: str) -> tuple[int, dict[str, str], bytes]:
    response, connection = ask(web, url)
    try:
        return response.status, dict(response.getheaders()), response.read()
    finally:
        response.close()
        connection.close()


def planted(*cases: str) -> list[str]:
    urls = [entry["url"] for entry in PLANTED if entry["case"] in cases]
    assert urls
    return urls


def last_step(url: str) -> str:
    return unquote(urlsplit(url).path.rpartition("/")[2])


def test_every_planted_picture_answers_as_its_case_says(web: MiniatureWeb) -> None:
    for entry in PLANTED:
        url, case = entry["url"], entry["case"]
        if not url.startswith("http") or case in NOT_SERVED | NO_ANSWER:
            continue
        status, headers, body = get(web, url)
        assert status == NO_FILE.get(case, 200), url
        if status == 200:
            assert headers["Content-Type"].startswith("image/")
            assert bool(body) == (case != "empty_body")


def test_every_planted_picture_stands_on_the_page_that_is_named(web: MiniatureWeb) -> None:
    pages = {entry["page"]: get(web, entry["page"])[2] for entry in PLANTED}
    for entry in PLANTED:
        is_written_out = entry["case"] == "broken_url" or not entry["url"].startswith("http")
        written = html.escape(entry["url"]) if is_written_out else last_step(entry["url"])
        assert written.encode() in pages[entry["page"]], entry


def test_the_readme_tells_every_case() -> None:
    readme = (WEB / "README.md").read_text(encoding="utf-8")
    assert {entry["case"] for entry in PLANTED if f"`{entry['case']}`" not in readme} == set()


def test_the_whole_site_is_smaller_than_ten_megabytes() -> None:
    assert sum(path.stat().st_size for path in WEB.rglob("*")) < 10_000_000


def test_links_follow_the_port(web: MiniatureWeb) -> None:
    body = get(web, web.seed)[2]
    assert f"http://shop.localhost:{web.port}/".encode() in body
    assert str(SITE_PORT).encode() not in body
    redirect = get(web, planted("redirect_works")[0].replace("/first/", "/second/"))[1]
    assert redirect["Location"].startswith(f"http://old.localhost:{web.port}/moved/here/")


def test_the_same_request_gets_the_same_bytes(web: MiniatureWeb) -> None:
    def raw() -> bytes:
        with socket.create_connection(("127.0.0.1", web.port)) as client:
            client.sendall(
                b"GET /logo.png HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n\r\n"
            )
            return b"".join(iter(lambda: client.recv(65536), b""))

    answer = raw()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\nServer: miniature-web\r\n")
    assert b"Date:" not in answer
    assert raw() == answer


def test_one_connection_serves_many_requests(web: MiniatureWeb) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=10)
    sockets = set()
    for path in ("/robots.txt", "/", "/nowhere", "/logo.png"):
        connection.request("GET", path, headers={"Host": "shop.localhost"})
        sockets.add(connection.sock)
        connection.getresponse().read()
    connection.close()
    assert len(sockets) == 1


def test_head_tells_the_length_and_sends_nothing(web: MiniatureWeb) -> None:
    url = "http://shop.localhost:8417/logo.png"
    response, connection = ask(web, url, "HEAD")
    assert response.getheader("Content-Length") == str(len(get(web, url)[2]))
    assert response.read() == b""
    connection.close()


def test_a_hostile_path_is_only_not_found(web: MiniatureWeb) -> None:
    for path in (
        "//[",
        "/%00",
        "/%ff",
        "/../../etc/passwd",
        "/logo.png%0d%0aX:%20y",
        "/" + "a" * 9000,
    ):
        assert get(web, f"http://shop.localhost:8417/x{path}")[0] == 404


def test_a_redirect_escapes_what_it_was_asked(web: MiniatureWeb) -> None:
    headers = get(web, "http://old.localhost:8417/moved/second/a%0d%0aX-Bad:%201.png")[1]
    assert headers["Location"].endswith("/moved/here/a%0D%0AX-Bad%3A%201.png")
    assert "X-Bad" not in headers


def test_an_unknown_host_has_no_pages(web: MiniatureWeb) -> None:
    assert get(web, "http://elsewhere.localhost:8417/")[0] == 404


def test_a_hang_up_gives_no_answer(web: MiniatureWeb) -> None:
    for url in planted("hang_up"):
        with pytest.raises(http.client.RemoteDisconnected):
            get(web, url)


def test_a_mail_server_greets_instead_of_answering(web: MiniatureWeb) -> None:
    for url in planted("not_http"):
        with pytest.raises(http.client.BadStatusLine, match="ESMTP"):
            get(web, url)


def test_no_encrypted_connection_comes_about(web: MiniatureWeb) -> None:
    for url in planted("no_tls"):
        assert url.startswith("https://")
    # What a greeting holds is different each time.
    for _ in range(20):
        with (
            socket.create_connection(("127.0.0.1", web.port), timeout=10) as plain,
            pytest.raises(ssl.SSLError, match="WRONG_VERSION_NUMBER"),
        ):
            ssl.create_default_context().wrap_socket(plain, server_hostname="old.localhost")


def test_what_comes_packed_unasked_is_a_picture(web: MiniatureWeb) -> None:
    for url in planted("unasked_gzip"):
        _, headers, body = get(web, url)
        assert headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(body).startswith(b"\x89PNG")


def test_a_damaged_page_cannot_be_unpacked(web: MiniatureWeb) -> None:
    _, headers, body = get(web, "http://blog.localhost:8417/damaged.html")
    assert headers["Content-Encoding"] == "gzip"
    with pytest.raises((zlib.error, OSError)):
        gzip.decompress(body)


def test_a_cut_answer_lacks_half_of_what_it_promised(web: MiniatureWeb) -> None:
    for url in planted("cut_off"):
        with pytest.raises(http.client.IncompleteRead) as caught:
            get(web, url)
        assert caught.value.expected is not None
        assert abs(len(caught.value.partial) - caught.value.expected) <= 1


def test_an_endless_picture_begins_as_one_and_goes_on(web: MiniatureWeb) -> None:
    for url in planted("too_big", "too_big_undeclared"):
        response, connection = ask(web, url)
        assert response.getheader("Content-Length") == (None if "undeclared" in url else "12000000")
        body = response.read()
        connection.close()
        assert body.startswith(b"\x89PNG")
        assert len(body) == 12_000_000


def test_a_client_may_hang_up_on_an_endless_picture(web: MiniatureWeb) -> None:
    response, connection = ask(web, planted("too_big")[0])
    response.read(1000)
    response.close()
    connection.close()
    assert get(web, web.seed)[0] == 200


def test_a_slow_host_is_slow_and_does_not_hold_up_the_end() -> None:
    with serve(WEB, 0) as web:
        response, connection = ask(web, planted("slow")[0])
        start = time.monotonic()
        assert len(response.read(5)) == 5
        assert time.monotonic() - start > 0.3
        ending = time.monotonic()
    assert time.monotonic() - ending < 2
    response.close()
    connection.close()


def test_an_owner_who_said_no_is_heard(web: MiniatureWeb) -> None:
    assert "noai" in get(web, planted("noai")[0])[1]["X-Robots-Tag"]
    rules = get(web, "http://private.localhost:8417/robots.txt")[2].decode()
    for url in planted("robots"):
        assert "Disallow: /closed/" in rules
        assert urlsplit(url).path.startswith("/closed/")


def test_requests_are_counted_by_host_and_path() -> None:
    with serve(WEB, 0) as web:
        for _ in range(3):
            get(web, "http://shop.localhost:8417/logo.png")
        assert web.requests == {("shop.localhost", "/logo.png"): 3}


def test_a_taken_port_is_told_in_one_line(web: MiniatureWeb) -> None:
    with pytest.raises(ConfigError, match=f"port {web.port} .* in use.*choose another") as caught:
        serve(WEB, web.port).__enter__()
    assert "\n" not in str(caught.value)


def test_a_port_is_free_again_at_once() -> None:
    with serve(WEB, 0) as web:
        port = web.port
        get(web, web.seed)
    with serve(WEB, port) as again:
        assert get(again, again.seed)[0] == 200


def test_a_folder_without_a_site_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no site, expected one HOST\.zip"):
        read_files(tmp_path)


def test_a_broken_zip_is_named(tmp_path: Path) -> None:
    (tmp_path / "shop.zip").write_bytes(b"PK no zip")
    with pytest.raises(InputError, match=r"shop\.zip cannot be read"):
        read_files(tmp_path)


def test_a_mistaken_behaviour_is_named(tmp_path: Path) -> None:
    table = tmp_path / "behaviours.toml"
    table.write_text('[[behaviour]]\nhost = "a"\n[[behaviour]]\nhost = "b"\nanswer = "sulk"\n')
    with pytest.raises(ConfigError, match=r"behaviour 2\.answer is 'sulk'"):
        read_behaviours(table)


def test_evaluation_sets_are_not_on_the_site_but_for_the_planted_copies() -> None:
    kept = set()
    for path in (WEB / "evalsets").glob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            kept |= {archive.read(name) for name in archive.namelist()}
    found = [name for name, data in read_files(WEB).items() if data in kept]
    copies = {urlsplit(url).path for url in planted("eval_bytes")}
    assert {host for host, _ in found} == {"mirror.localhost"}
    assert {path for _, path in found} == copies


def test_one_evaluation_picture_is_cut_off() -> None:
    broken = []
    for path in sorted((WEB / "evalsets").glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                try:
                    Image.open(archive.open(name)).load()
                except OSError:
                    broken.append(f"{path.stem}/{name}")
    assert broken == ["digits/zero/0000-cut-off.png"]


def test_every_evaluation_label_and_planted_copy_names_something_of_its_set() -> None:
    sets = tomllib.loads((WEB / "evalsets.toml").read_text(encoding="utf-8"))
    members = {}
    for name, settings in sets.items():
        with zipfile.ZipFile(WEB / settings["path"]) as archive:
            members[name] = set(archive.namelist())
        classes = {member.partition("/")[0] for member in members[name]}
        assert set(settings.get("labels", {})) <= classes
        assert all("{label}" in prompt for prompt in settings["prompts"])
    for entry in PLANTED:
        if entry["case"].startswith("eval_"):
            name, _, member = entry["of"].partition("/")
            assert member in members[name]


def test_the_first_behaviour_that_fits_holds() -> None:
    web = MiniatureWeb(
        {},
        [
            Behaviour(host="a", path="/x/*", status=410, answer="status"),
            Behaviour(host="*", path="/x/*", answer="hang_up"),
        ],
    )
    assert web.behaviour("a", "/x/1").status == 410
    assert web.behaviour("b", "/x/1").answer == "hang_up"
    assert web.behaviour("b", "/y").answer == "file"
