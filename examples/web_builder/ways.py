"""The ways in which pages name pictures: relative, based, lazy, by srcset, inline, broken."""

from collections.abc import Sequence

from web_builder.shops import Shown
from web_builder.site import Site, figure, img, page, url

HOST = "photos"
BRAND = "Open Photographs"
LINKS = (
    ("/", BRAND),
    ("/relative/here.html", "Relative"),
    ("/based.html", "Based"),
    ("/lazy.html", "Lazy"),
    ("/srcset.html", "Many sizes"),
    ("/schemes.html", "Schemes"),
    ("/hidden.html", "Hidden"),
    ("//blog.localhost:8417/", "Our blog"),
)
PLACEHOLDER = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
NO_PICTURE = {
    "data_url": (PLACEHOLDER, "A very small picture inside the page"),
    "javascript_url": ("javascript:void(0)", "A picture that a script was to show"),
    "mailto_url": ("mailto:editor@photos.localhost", "A letter to the editor of this page"),
    "ftp_url": ("ftp://photos.localhost/large/brick.jpg", "A brick wall on a file server"),
    "blob_url": ("blob:http://photos.localhost/0c4d", "A picture held by the reader's browser"),
}
BROKEN = {
    "http://": "A picture without any address",
    "http:///brick.jpg": "A wall on a host without a name",
    "http://[::1/brick.jpg": "A wall behind a broken bracket",
    "http://photos.localhost:port/brick.jpg": "A wall behind a port that is no number",
    "http://exa mple.localhost/brick.jpg": "A wall on a host with a space",
    "": "A picture with an empty address",
}


def ways(site: Site, photographs: Sequence[Shown]) -> None:
    """Add the pages of the photographs, each of which shows them in another way."""
    stems = [photo.url.rpartition("/")[2] for photo in photographs]
    shown = list(zip(stems, (photo.caption for photo in photographs), strict=True))
    plain = [figure(photo.url, photo.caption) for photo in photographs]
    site.add(HOST, "/", page("Photographs", plain, brand=BRAND, links=LINKS))
    _relative(site, shown)
    _based(site, shown)
    _lazy(site, shown)
    _sizes(site, shown)
    _schemes(site, photographs[0].data)
    _hidden(site)


def _relative(site: Site, shown: Sequence[tuple[str, str]]) -> None:
    folder = url(HOST, "/relative/here.html")
    figures = []
    for (stem, caption), prefix in zip(
        shown, ("../small/", "/small/", "./../small/", "..//small/../small/"), strict=False
    ):
        text = f"{caption}, small version"
        figures.append(figure(f"{prefix}{stem}", text))
        if "//" not in prefix:
            site.plant("url_relative", url(HOST, f"/small/{stem}"), text, folder)
    for stem, caption in shown[4:7]:
        figures.append(figure(f"//photos.localhost:8417/small/{stem}", f"Small: {caption}"))
        site.plant("url_protocol", url(HOST, f"/small/{stem}"), f"Small: {caption}", folder)
    site.add(HOST, "/relative/here.html", page("Small versions", figures, brand=BRAND, links=LINKS))


def _based(site: Site, shown: Sequence[tuple[str, str]]) -> None:
    at = url(HOST, "/based.html")
    figures = [figure(stem, f"{caption} (thumbnail)") for stem, caption in shown[:4]]
    base = '<base href="http://photos.localhost:8417/small/">\n'
    site.add(HOST, "/based.html", page("Thumbnails", figures, brand=BRAND, links=LINKS, head=base))
    for stem, caption in shown[:4]:
        site.plant("url_base", url(HOST, f"/small/{stem}"), f"{caption} (thumbnail)", at)


def _lazy(site: Site, shown: Sequence[tuple[str, str]]) -> None:
    at = url(HOST, "/lazy.html")
    figures = []
    for position, (stem, caption) in enumerate(shown[:6]):
        attribute = ("data_src", "data_original", "data_lazy_src")[position % 3]
        text = f"{caption}, loaded late"
        figures.append(
            figure(PLACEHOLDER, text, **{attribute: f"/large/{stem}", "loading": "lazy"})
        )
        site.plant("url_lazy", url(HOST, f"/large/{stem}"), text, at)
    site.add(HOST, "/lazy.html", page("Photographs that wait", figures, brand=BRAND, links=LINKS))


def _sizes(site: Site, shown: Sequence[tuple[str, str]]) -> None:
    at = url(HOST, "/srcset.html")
    figures = []
    for stem, caption in shown[:5]:
        text = f"{caption}, in two sizes"
        figures.append(
            figure(f"/small/{stem}", text, srcset=f"/small/{stem} 160w, /large/{stem} 480w")
        )
        site.plant(
            "url_srcset", url(HOST, f"/small/{stem}"), text, at, of=url(HOST, f"/large/{stem}")
        )
    for stem, caption in shown[5:]:
        text = f"{caption}, for every screen"
        source = f'<source media="(min-width: 800px)" srcset="/large/{stem}">'
        figures.append(f"<picture>{source}{img(f'/small/{stem}', text)}</picture>")
        site.plant(
            "url_picture", url(HOST, f"/small/{stem}"), text, at, of=url(HOST, f"/large/{stem}")
        )
    site.add(HOST, "/srcset.html", page("Many sizes", figures, brand=BRAND, links=LINKS))


def _schemes(site: Site, photograph: bytes) -> None:
    at = url(HOST, "/schemes.html")
    figures = []
    for case, (address, caption) in NO_PICTURE.items():
        figures.append(figure(address, caption))
        site.plant(case, address, caption, at)
    for address, caption in BROKEN.items():
        figures.append(figure(address, caption))
        site.plant("broken_url", address, caption, at)
    # What stands in the page, how it is asked for, and where it lies.
    odd = (
        ("url_space", "/odd/brick wall.jpg", "/odd/brick%20wall.jpg", "/odd/brick wall.jpg"),
        ("url_unicode", "/odd/mauer-überall.jpg", "/odd/mauer-%C3%BCberall.jpg", "/odd/mauer-überall.jpg"),
        ("url_query", "/odd/wall.jpg?size=large&v=2", "/odd/wall.jpg?size=large&v=2", "/odd/wall.jpg"),
        ("url_white", "  /odd/trimmed.jpg\n", "/odd/trimmed.jpg", "/odd/trimmed.jpg"),
    )  # fmt: skip
    for case, written, asked, stored in odd:
        caption = f"The first photograph again, {case.removeprefix('url_')} in its address"
        site.add(HOST, stored, photograph)
        figures.append(figure(written, caption))
        site.plant(case, url(HOST, asked), caption, at)
    site.add(HOST, "/schemes.html", page("Other addresses", figures, brand=BRAND, links=LINKS))


def _hidden(site: Site) -> None:
    """Add pictures that are only spoken of: in a comment, a script and a text area."""
    captions = {
        "comment": "A lawn that only a comment shows",
        "script": "A lawn that only a script shows",
        "textarea": "A lawn that only a form shows",
    }
    src = url(HOST, "/small/grass.jpg")
    tags = {kind: img(src, caption) for kind, caption in captions.items()}
    parts = [
        f"<!-- {tags['comment']} -->",
        f"<script>document.write('{tags['script']}')</script>",
        f"<textarea>{tags['textarea']}</textarea>",
    ]
    at = site.add(HOST, "/hidden.html", page("Nothing to see", parts, brand=BRAND, links=LINKS))
    for caption in captions.values():
        site.plant("no_element", src, caption, at)
