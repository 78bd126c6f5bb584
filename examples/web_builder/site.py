"""The site as it grows: files by host and path, and the list of what was planted on purpose."""

import io
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from pipeline.miniature_web import SITE_PORT

STYLE = "main{display:flex;flex-wrap:wrap;gap:1em}h1{width:100%}nav li{display:inline;margin-right:1em}figure{margin:0}"
FIXED_TIME = (1980, 1, 1, 0, 0, 0)
GZIP_FORMAT = zlib.MAX_WBITS | 16


class Site:
    """Files by host and path, and the planted cases."""

    def __init__(self) -> None:
        """Start empty."""
        self.files: dict[str, dict[str, bytes]] = defaultdict(dict)
        self.planted: list[dict[str, str | None]] = []

    def add(self, host: str, path: str, content: bytes | str) -> str:
        """Put a file on `host` and return its URL.

        Raises:
            ValueError: if something is there already.
        """
        if path in self.files[host]:
            raise ValueError(f"{url(host, path)} is there already")
        self.files[host][path] = content.encode() if isinstance(content, str) else content
        return url(host, path)

    def plant(
        self, case: str, image: str, caption: str | None, page: str, *, of: str | None = None
    ) -> None:
        """Note that `page` shows `image` with `caption` as an example of `case`."""
        entry = {"url": image, "caption": caption, "case": case, "page": page}
        self.planted.append(entry | ({"of": of} if of else {}))

    def write(self, folder: Path) -> None:
        """Write one zip per host into `folder`."""
        for host, files in sorted(self.files.items()):
            content = {_file(path): data for path, data in files.items()}
            (folder / f"{host}.zip").write_bytes(zipped(content))


def _file(path: str) -> str:
    return path.removeprefix("/") + ("index.html" if path.endswith("/") else "")


def url(host: str, path: str) -> str:
    """Return the URL of `path` on `host`."""
    return f"http://{host}.localhost:{SITE_PORT}{path}"


def zipped(files: dict[str, bytes]) -> bytes:
    """Return a zip of `files`, sorted, without times; pictures are stored, text is deflated."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, FIXED_TIME)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            is_text = name.endswith((".html", ".txt", ".svg", ".json"))
            entry.compress_type = zipfile.ZIP_DEFLATED if is_text else zipfile.ZIP_STORED
            archive.writestr(entry, data, compresslevel=9)
    return target.getvalue()


def gzipped(data: bytes) -> bytes:
    """Return `data` as gzip without a time; `gzip.compress` writes another head in later Pythons."""
    return zlib.compress(data, 9, GZIP_FORMAT)


def img(src: str, alt: str | None, **attributes: object) -> str:
    """Return an `<img>`; no alt attribute at all if `alt` is None."""
    pairs: dict[str, object] = {"src": src}
    if alt is not None:
        pairs["alt"] = alt
    written = [
        f'{name.replace("_", "-")}="{escape(str(v))}"' for name, v in (pairs | attributes).items()
    ]
    return f"<img {' '.join(written)}>"


def page(
    title: str,
    parts: Iterable[str],
    *,
    lang: str = "en",
    brand: str,
    links: Sequence[tuple[str, str]] = (),
    head: str = "",
    charset: str = "utf-8",
) -> str:
    """Return a whole HTML page: navigation, a heading, `parts`, a foot."""
    menu = "\n".join(f'<li><a href="{escape(to)}">{escape(name)}</a></li>' for to, name in links)
    return f"""<!doctype html>
<html lang="{lang}">
<head>
<meta charset="{charset}">
<title>{escape(title)} | {escape(brand)}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>{STYLE}</style>
{head}</head>
<body>
<header><a href="/">{escape(brand)}</a>
<nav><ul>
{menu}
</ul></nav></header>
<main>
<h1>{escape(title)}</h1>
{chr(10).join(parts)}
</main>
<footer><p>{escape(brand)}</p></footer>
</body>
</html>
"""


def figure(src: str, alt: str | None, text: str = "", **attributes: object) -> str:
    """Return a picture with a line of text under it."""
    under = f"<figcaption>{escape(text)}</figcaption>" if text else ""
    return f"<figure>{img(src, alt, **attributes)}{under}</figure>"


def listing(
    site: Site,
    host: str,
    folder: str,
    title: str,
    items: Sequence[str],
    *,
    brand: str,
    per_page: int,
    links: Sequence[tuple[str, str]],
    lang: str = "en",
) -> list[str]:
    """Add pages `folder/1.html` ... that show `items`, each linking to the next; return their URLs."""
    pages = range(1, -(-len(items) // per_page) + 1)
    written = []
    for number in pages:
        shown = items[(number - 1) * per_page : number * per_page]
        turn = [
            f'<a rel="{rel}" href="{folder}/{other}.html">{other}</a>'
            for rel, other in (("prev", number - 1), ("next", number + 1))
            if other in pages
        ]
        parts = [*shown, f"<p>{' '.join(turn)}</p>"]
        name = title if number == 1 else f"{title} ({number})"
        text = page(name, parts, lang=lang, brand=brand, links=links)
        written.append(site.add(host, f"{folder}/{number}.html", text))
    return written
