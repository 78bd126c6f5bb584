"""Pictures that are gone, refused, lied about, broken, endless or good in an unusual format."""

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from web_builder import sources
from web_builder.choice import pick
from web_builder.pictures import (
    few_colours,
    jpeg,
    lossless_webp,
    on_white,
    one_colour_png,
    png,
    saved,
)
from web_builder.site import Site, figure, gzipped, page, url

BRAND = "Old Picture Post"
THINGS = ("red bicycle", "stone bridge", "wooden boat", "small church", "white horse", "market stall", "street lamp", "garden gate", "brick chimney", "steam engine", "green door", "iron fence")  # fmt: skip
PLACES = ("by the river", "in the old town", "near the harbour", "on a hill", "at the end of the road", "behind the station", "in the morning light", "after the rain", "in front of a cottage", "under a grey sky")  # fmt: skip
# case: where its pictures are said to be, and how many; behaviours.toml does the rest.
NOTHING_THERE = {
    "not_found": ("http://old.localhost:8417/dead/404/{}.png", 6),
    "gone": ("http://old.localhost:8417/dead/410/{}.png", 4),
    "forbidden": ("http://old.localhost:8417/dead/403/{}.png", 3),
    "too_many_requests": ("http://old.localhost:8417/dead/429/{}.png", 3),
    "server_error": ("http://old.localhost:8417/dead/500/{}.png", 4),
    "unavailable": ("http://old.localhost:8417/dead/503/{}.png", 4),
    "no_such_host": ("http://gone.invalid/pictures/{}.png", 4),
    "closed_port": ("http://old.localhost:9/pictures/{}.png", 3),
    "redirect_loop": ("http://old.localhost:8417/moved/loop-a/{}.png", 3),
    "redirect_private": ("http://old.localhost:8417/moved/private/{}.png", 3),
    "redirect_scheme": ("http://old.localhost:8417/moved/scheme/{}.png", 3),
    "no_tls": ("https://old.localhost:8417/pictures/{}.png", 3),
    "not_http": ("http://old.localhost:8417/not-http/{}.png", 3),
    "hang_up": ("http://old.localhost:8417/hang-up/{}.png", 4),
    "too_big": ("http://old.localhost:8417/endless/declared/{}.png", 2),
    "too_big_undeclared": ("http://old.localhost:8417/endless/undeclared/{}.png", 2),
}
PRIVATE = (
    "http://10.0.0.1/x.png",
    "http://169.254.169.254/latest/meta-data/x.png",
    "http://192.168.0.1/router.png",
    "http://[fd00::1]/x.png",
)
HTML = "<!doctype html><title>Sorry</title><p>This picture has moved.</p>\n"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><circle cx="32" cy="32" r="30" fill="teal"/></svg>\n'


def trouble(site: Site, folder: Path) -> None:
    """Add the hosts whose pictures cannot be had, or should not be."""
    pictures = [
        (on_white(sources.clipart_image(folder, clipart), 128), clipart.caption)
        for clipart in sources.cliparts()
        if clipart.gallery == "formats"
    ]
    shown: dict[str, list[tuple[str, str]]] = {}
    for case, (pattern, count) in NOTHING_THERE.items():
        shown[case] = [(pattern.format(n), scene(case, n)) for n in range(count)]
    shown["private_address"] = [(a, scene("private", n)) for n, a in enumerate(PRIVATE)]
    shown |= _stored(site, [picture for picture, _ in pictures])
    shown |= _formats(site, pictures)
    shown |= _elsewhere(site, [picture for picture, _ in pictures])
    _pages(site, shown)


def scene(*key: object) -> str:
    """Return a caption for a picture that nobody will see."""
    thing = pick(THINGS, "thing", *key)
    return f"{'An' if thing[0] in 'i' else 'A'} {thing} {pick(PLACES, 'place', *key)}"


def _put(site: Site, case: str, suffix: str, contents: Sequence[bytes]) -> list[tuple[str, str]]:
    path = f"/{case.replace('_', '-')}"
    return [
        (site.add("old", f"{path}/{n}.{suffix}", data), scene(case, n))
        for n, data in enumerate(contents)
    ]


def _stored(site: Site, pictures: Sequence[Image.Image]) -> dict[str, list[tuple[str, str]]]:
    """Add files that are not the pictures they are said to be."""
    graphics = [png(few_colours(picture)) for picture in pictures]
    photos = [jpeg(picture) for picture in pictures]
    shown = {
        "truncated_file": [
            *_put(site, "truncated_file", "png", [data[: len(data) // 2] for data in graphics[:3]]),
            *_put(site, "truncated_file", "jpg", [data[: len(data) // 2] for data in photos[3:6]]),
        ],
        "cut_off": _put(site, "cut_off", "png", graphics[:3]),
        "unasked_gzip": _put(site, "unasked_gzip", "png", [gzipped(data) for data in graphics[9:11]]),
        "html_as_jpeg": _put(site, "html_as_jpeg", "jpg", [HTML.encode()] * 4),
        "text_as_png": _put(site, "text_as_png", "png", [b"no picture\n"] * 3),
        "vector": _put(site, "vector", "svg", [SVG.replace("teal", c).encode() for c in ("teal", "navy", "tan")]),
        "empty_body": _put(site, "empty_body", "png", [b""] * 3),
        "bad_header": _put(site, "bad_header", "png", [_lying_png(w, h) for w, h in ((0, 0), (2**31 - 1, 1))]),
        "one_pixel": _put(site, "one_pixel", "png", [png(Image.new("RGB", (1, 1), c)) for c in ("white", "black", "red", "blue")]),
        "banner": _put(site, "banner", "png", [png(few_colours(_banner(p))) for p in pictures[:4]]),
        "bomb": _put(site, "bomb", "png", [one_colour_png(side) for side in (12_000, 16_000, 20_000)]),
        "redirect_works": [],
    }  # fmt: skip
    for number, data in enumerate(graphics[6:9]):
        site.add("old", f"/moved/here/{number}.png", data)
        shown["redirect_works"].append(
            (
                url("old", f"/moved/first/{number}.png"),
                f"A picture that moved twice, number {number}",
            )
        )
    return shown


def _formats(
    site: Site, pictures: Sequence[tuple[Image.Image, str]]
) -> dict[str, list[tuple[str, str]]]:
    """Add good pictures in formats that are rare, but not wrong."""
    rotated = Image.Exif()
    rotated[0x0112] = 6
    write: tuple[tuple[str, Callable[[Image.Image], bytes]], ...] = (
        ("gif", lambda p: saved(few_colours(p), "GIF")),
        ("webp", lossless_webp),
        ("bmp", lambda p: saved(p.resize((64, 64)), "BMP")),
        ("tif", lambda p: saved(p.resize((64, 64)), "TIFF")),
        ("jpg", lambda p: jpeg(p.convert("CMYK"))),
        ("jpg", lambda p: jpeg(p.convert("L"))),
        ("jpg", lambda p: jpeg(p, progressive=True)),
        ("jpg", lambda p: jpeg(p.transpose(Image.Transpose.ROTATE_90), exif=rotated)),
        ("png", lambda p: saved(p.convert("1"), "PNG")),
        ("png", lambda p: saved(_sixteen_bit(p.resize((64, 64))), "PNG")),
        ("png", lambda p: png(_faded(p.resize((64, 64))))),
    )
    shown = []
    for number, ((suffix, form), (picture, caption)) in enumerate(
        zip(write, pictures[2:], strict=False)
    ):
        shown.append((site.add("old", f"/formats/{number}.{suffix}", form(picture)), caption))
    return {"format": shown}


def _elsewhere(site: Site, pictures: Sequence[Image.Image]) -> dict[str, list[tuple[str, str]]]:
    """Add hosts of owners who said no, and one that is too slow."""
    shown: dict[str, list[tuple[str, str]]] = {"noai": [], "robots": [], "slow": []}
    for number, picture in enumerate(pictures[:6]):
        turned = png(
            few_colours(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((96, 96)))
        )
        for case, path, count in (("noai", "/pictures", 6), ("robots", "/closed", 4)):
            if number < count:
                address = site.add("private", f"{path}/{number}.png", turned)
                shown[case].append((address, scene(case, number)))
        if number < 4:
            address = site.add("slow", f"/{number}.png", turned)
            shown["slow"].append((address, scene("slow", number)))
    return shown


def _pages(site: Site, shown: dict[str, list[tuple[str, str]]]) -> None:
    """Show each case's pictures on a page of its own; hosts other than `old` show their own."""
    hosts = {"noai": "private", "robots": "private", "slow": "slow"}
    links: dict[str, list[tuple[str, str]]] = {}
    for case, entries in shown.items():
        host = hosts.get(case, "old")
        path = f"/pages/{case.replace('_', '-')}.html"
        figures = [figure(address, caption) for address, caption in entries]
        at = site.add(host, path, page("Old pictures", figures, brand=BRAND, links=[("/", BRAND)]))
        links.setdefault(host, []).append((path, case))
        for address, caption in entries:
            site.plant(case, address, caption, at)
    for host, found in links.items():
        site.add(host, "/", page("Old pictures", [], brand=BRAND, links=found))


def _banner(picture: Image.Image) -> Image.Image:
    banner = Image.new("RGB", (468, 40), "navy")
    banner.paste(picture.resize((40, 40)), (10, 0))
    return banner


def _faded(picture: Image.Image) -> Image.Image:
    faded = picture.convert("RGBA")
    faded.putalpha(Image.linear_gradient("L").resize(picture.size))
    return faded


def _sixteen_bit(picture: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)


def _lying_png(width: int, height: int) -> bytes:
    good = png(Image.new("RGB", (8, 8), "white"))
    return good[:16] + struct.pack(">II", width, height) + good[24:]
