"""A host that copies from others: duplicates, and copies of evaluation pictures.

Every copy has a caption of its own in good English, so that only the picture tells.
"""

from collections.abc import Callable, Sequence

from PIL import Image

from web_builder.choice import shuffled
from web_builder.pictures import jpeg, lossless_webp, opened, png
from web_builder.shops import Shown
from web_builder.site import Site, figure, page

BRAND = "Picture Mirror"
PRAISE = (
    "we found this on another site",
    "one of our favourite pictures",
    "seen on the web last week",
    "a picture that a reader sent us",
    "copied for our collection",
)

Edit = Callable[[bytes], tuple[bytes, str]]


def same(data: bytes) -> tuple[bytes, str]:
    """Return the very file."""
    return data, "jpg" if data.startswith(b"\xff\xd8") else "png"


def packed_anew(data: bytes) -> tuple[bytes, str]:
    """Return another PNG with equal pixels."""
    return png(opened(data).convert("RGB"), level=1), "png"


def as_webp(data: bytes) -> tuple[bytes, str]:
    """Return a lossless WebP with equal pixels."""
    return lossless_webp(opened(data)), "webp"


def as_jpeg(data: bytes) -> tuple[bytes, str]:
    """Return a JPEG of middling quality."""
    return jpeg(opened(data).convert("RGB"), 70), "jpg"


def resized(data: bytes) -> tuple[bytes, str]:
    """Return a PNG, an eighth smaller each way; a JPEG of one."""
    picture = opened(data).convert("RGB")
    size = (picture.width * 7 // 8, picture.height * 7 // 8)
    smaller = picture.resize(size, Image.Resampling.LANCZOS)
    return (jpeg(smaller), "jpg") if data.startswith(b"\xff\xd8") else (png(smaller), "png")


def mirror(
    site: Site,
    *,
    small: Sequence[Shown],
    large: Sequence[Shown],
    kept_small: Sequence[Shown],
    kept_large: Sequence[Shown],
) -> None:
    """Add the host.

    Args:
        small, large: pictures of other hosts, the large ones fit for perceptual hashes.
        kept_small, kept_large: pictures of the evaluation sets, likewise.
    """
    some, many = shuffled(small, "mirror5"), shuffled(large, "mirror5")
    kept, kept_many = shuffled(kept_small, "kept"), shuffled(kept_large, "kept")
    plan: dict[str, list[tuple[Edit, Sequence[Shown]]]] = {
        "copy_bytes": [(same, some[:6]), (same, many[:4])],
        "copy_pixels": [(packed_anew, some[6:10]), (as_webp, many[4:8])],
        "copy_resized": [(resized, many[8:16])],
        "copy_jpeg": [(as_jpeg, many[16:24])],
        "eval_bytes": [(same, kept[:10]), (same, kept_many[:6])],
        "eval_pixels": [(packed_anew, kept[10:16]), (as_webp, kept[16:20]), (packed_anew, kept_many[6:10])],
        "eval_resized": [(resized, kept_many[10:20])],
        "eval_jpeg": [(as_jpeg, kept_many[20:30])],
    }  # fmt: skip
    links = [("/", BRAND), *((f"/{case.replace('_', '-')}.html", case) for case in plan)]
    for case, edits in plan.items():
        _copies(site, case, edits, links)
    site.add("mirror", "/", page("Welcome", [], brand=BRAND, links=links))


def _copies(
    site: Site,
    case: str,
    edits: Sequence[tuple[Edit, Sequence[Shown]]],
    links: Sequence[tuple[str, str]],
) -> None:
    figures: list[str] = []
    entries: list[tuple[str, str, str]] = []
    for edit, originals in edits:
        for original in originals:
            data, suffix = edit(original.data)
            path = f"/{case.replace('_', '-')}/{len(entries):02}.{suffix}"
            address = site.add("mirror", path, data)
            praise = PRAISE[len(entries) % len(PRAISE)]
            caption = f"{original.caption.rstrip('.')}, {praise}"
            figures.append(figure(path, caption))
            entries.append((address, caption, original.url))
    text = page("Pictures we like", figures, brand=BRAND, links=links)
    at = site.add("mirror", f"/{case.replace('_', '-')}.html", text)
    for address, caption, copied in entries:
        site.plant(case, address, caption, at, of=copied)
