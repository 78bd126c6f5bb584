import random
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.inputs.pairs import BrokenRecord
from pipeline.pages.html import find_images
from pipeline.pages.html_kernels import IMAGES
from pipeline.pages.page_rows import PageRows
from pipeline.pages.reader import PageReader
from pipeline.pages.row_tables import tabulate
from tests.reference.page_images import find_pairs

URL = "http://h.example/d/p.html"
ROWS = PageRows("x", 100_000)
READER = PageReader(ROWS)

Rows = tuple[list[dict[str, object]], list[dict[str, object]]]


def by_tags(page: bytes, charset: str | None = "utf-8") -> Rows | None:
    mark = ROWS.mark()
    try:
        READER.add_page(page, page_url=URL, charset=charset, offset=5)
    except BrokenRecord:
        ROWS.back_to(mark)
        return None
    pairs, drops, _ = ROWS.take()
    return pairs.to_pylist(), drops.to_pylist()


def by_tree(page: bytes, charset: str | None = "utf-8") -> Rows | None:
    try:
        found = list(find_images(page, page_url=URL, charset=charset, offset=5))
    except BrokenRecord:
        return None
    pairs, drops, _ = tabulate(found, "x")
    return pairs.to_pylist(), drops.to_pylist()


def in_any_order(rows: Rows | None) -> list[list[str]] | None:
    return rows and [sorted(map(str, table)) for table in rows]


def assert_same(page: bytes, charset: str | None = "utf-8") -> None:
    # The tree moves what stands between the cells of a table: the order may differ, nothing else.
    assert in_any_order(by_tags(page, charset)) == in_any_order(by_tree(page, charset)), page


def needs_tree(page: str) -> bool:
    before = READER.by_tree
    by_tags(page.encode())
    return READER.by_tree > before


def real_pages(shared_data: Path) -> Iterator[bytes]:
    with tarfile.open(shared_data / "crawl/pages.tar.xz") as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file and member.name.endswith((".html", ".htm")):
                yield file.read()


@pytest.mark.slow
def test_real_pages_give_the_same_by_tags_as_by_tree(shared_data: Path) -> None:
    before, count = READER.by_tree, 0
    for page in real_pages(shared_data):
        assert by_tags(page, None) == by_tree(page, None)
        count += 1
    assert count > 600
    assert READER.by_tree - before < count // 50


@pytest.mark.slow
def test_real_pages_give_what_the_reference_finds(shared_data: Path) -> None:
    for page in list(real_pages(shared_data))[::4]:
        text = page.decode("utf-8", "replace")
        found = by_tags(text.encode(), "utf-8")
        assert found is not None
        rows = [(p["url"], p["caption"], p["caption_source"]) for p in found[0]]
        rows += [(d["reason"], "", "") for d in found[1]]
        assert sorted(rows) == find_pairs(text, URL)  # type: ignore[type-var]


@pytest.mark.slow
def test_damaged_real_pages_give_the_same_by_tags_as_by_tree(shared_data: Path) -> None:
    draw = random.Random(8)
    pages = [page for page in real_pages(shared_data) if b"<img" in page and len(page) < 200_000]
    ends = time.monotonic() + 8
    while time.monotonic() < ends:
        assert_same(damage(draw.choice(pages), draw))


PIECES = [
    b"<",
    b">",
    b'"',
    b"'",
    b"</",
    b"<!--",
    b"-->",
    b"<script>",
    b"</figure>",
    b"<figure>",
    b"</td>",
    b"\0",
]


def damage(page: bytes, draw: random.Random) -> bytes:
    """Return a piece of `page` with bytes changed, cut out, put in and repeated."""
    start = draw.randrange(len(page))
    broken = bytearray(page[start : start + 20_000])
    for _ in range(draw.randint(1, 12)):
        at = draw.randrange(len(broken) + 1)
        match draw.randrange(4):
            case 0:
                broken[at : at + 1] = bytes([draw.randrange(256)])
            case 1:
                del broken[at : at + draw.randrange(300)]
            case 2:
                broken[at:at] = draw.choice(PIECES)
            case _:
                broken[at:at] = broken[at : at + draw.randrange(2000)]
    return bytes(broken)


NAMES = "img figure figcaption picture source div p li ul table tr td svg style script title select option"
NAMES += " template noscript a b button object h2 h3 textarea base span form math dd dt section"
VALUES = [
    "a.jpg",
    "/b c.png",
    "data:,x",
    "//h/é",
    "./x",
    "a&amp;b",
    "&eacute;",
    "&copy=1",
    "",
    " x ",
    "a 1x, b 2x",
]
VALUES += [
    "a\n2x",
    "A dog",
    "\xa0",
    "&#xA9;",
    "&#10;",
    "../z",
    "http://x/?",
    "q?a=b",
    "#",
    "a/./b",
    "A\r\nB",
    "Ａ",
]
ATTRIBUTES = ["src", "alt", "title", "srcset", "data-src", "data-srcset", "href", "SRC"]
TEXTS = [
    "text",
    "<",
    "&amp;",
    " ",
    "<!-- x -->",
    "<!--",
    "-->",
    "</",
    "<![CDATA[",
    "]]>",
    "<?x>",
    "<!x>",
    "\0",
    "é",
]

value = st.sampled_from(VALUES)
quoted = st.one_of(
    value.map(lambda v: f'="{v}"'), value.map(lambda v: f"='{v}'"), value.map(lambda v: f" = {v}")
) | st.just("")
attribute = st.tuples(st.sampled_from(ATTRIBUTES), quoted).map("".join)
attributes = st.lists(attribute, max_size=4).map(" ".join)
start_tag = st.tuples(
    st.sampled_from(NAMES.split()), attributes, st.sampled_from(["", "/", " /"])
).map(lambda parts: f"<{parts[0]} {parts[1]}{parts[2]}>")
end_tag = st.sampled_from(NAMES.split()).map(lambda name: f"</{name}>")
image = attributes.map(lambda a: f"<img {a}>")
meta = st.tuples(
    st.sampled_from(["og:image", "og:title", "og:image:alt", "og:description", "x"]), quoted
).map(lambda parts: f"<meta property={parts[0]} content{parts[1]}>")
markup = st.lists(st.one_of(start_tag, end_tag, image, meta, st.sampled_from(TEXTS)), max_size=14)


@given(markup.map("".join))
@settings(max_examples=600)
def test_any_markup_gives_the_same_by_tags_as_by_tree(page: str) -> None:
    assert_same(page.encode())


@given(st.text(alphabet="<>/!-\"'= \nimgscrptaldvftu&;#x0é", max_size=80))
@settings(max_examples=300)
def test_any_characters_give_the_same_by_tags_as_by_tree(text: str) -> None:
    assert_same(b"<img src=a alt=b>" + text.encode() + b"<img src=c alt=d>")


@pytest.mark.parametrize(
    "page",
    [
        "<figure><img src=a><figcaption>A dog</figcaption></figure>",
        "<ul><li><figure><div><p>x</div><img src=a></figure><li></ul>",
        "<svg><style>a</style><path/></svg><img src=a>",
        "<script>if (a<b) '<img>'</script><!-- <img> --><img src=a>",
        "<picture><source srcset=b><img></picture>",
        "<select><option>a</select><template><img></template><img src=a>",
    ],
)
def test_plain_pages_need_no_tree(page: str) -> None:
    assert not needs_tree(page)
    assert READER._found[IMAGES] >= 1


@pytest.mark.parametrize(
    "page",
    [
        "<div><figure><figcaption>x</figcaption></div><img src=a></figure>",
        "<table><tr><td><figure><figcaption>x</figcaption><td><img src=a></figure></table>",
        "<svg><style>a<img src=a></style></svg>",
        "<select><img src=a></select>",
        "<image src=a>",
        "<picture><div><source srcset=b></div><img></picture>",
    ],
)
def test_pages_that_tags_do_not_tell_need_their_tree(page: str) -> None:
    assert needs_tree(page)


def test_a_page_with_too_many_images_is_refused_and_leaves_nothing() -> None:
    with pytest.raises(BrokenRecord, match="more than 20000 images"):
        READER.add_page(b"<img src=a alt=b>" * 20_001, page_url=URL, charset=None, offset=0)
    assert by_tags(b"<img src=a alt=b>") == by_tree(b"<img src=a alt=b>")


CAPTION = b"<figcaption>" + b"<b>x</b>" * 50_000 + b"</figcaption>"


@pytest.mark.parametrize(
    "page",
    [
        b"<img " + b"a=b " * 2_000_000 + b">",
        b"<img src=a alt='" + b"&#1" * 1_000_000 + b"'>",
        b"<figure>" + CAPTION + b"<img src=a alt=b>" * 19_999,
        b"<figure>" + CAPTION[:15_000] + b"</figcaption>" + b"<img src=a alt=b>" * 19_999,
        b"<image><figure>" + CAPTION + b"<img src=a alt=b>" * 19_999,
        b"<picture>" + b"<source srcset='a 1x'>" * 19_000 + b"<img alt=x>" * 19_000,
        b"<figure>" * 500_000 + b"<figcaption><img src=a>",
        b"<img src=a alt=b>" + b"<script><!--<script>" * 200_000,
        (b"<img alt=x srcset='" + b"a 1x," * 3000 + b"'>") * 500,
    ],
    ids=range(9),
)
def test_a_page_made_to_take_long_does_not(page: bytes) -> None:
    begun = time.process_time()
    by_tags(page)
    assert time.process_time() - begun < 4


@pytest.mark.parametrize("characters", [4096, 4097])
def test_images_that_share_long_texts_have_room_for_each(characters: int) -> None:
    text = "\u6f22" * (characters - 1)
    page = (
        f'<meta property="og:description" content="{text}a">'
        f'<meta property="og:title" content="{text}b">'
        + "".join(f'<meta property="og:image" content="http://h/{i}.jpg">' for i in range(990))
    )
    rows = PageRows("x", 100_000)
    arena = rows._texts.size
    PageReader(rows).add_page(page.encode(), page_url=URL, charset="utf-8", offset=5)
    assert rows._ends[2] <= rows._texts.size
    pairs, drops, _ = rows.take()
    assert (pairs.to_pylist(), drops.to_pylist()) == by_tree(page.encode())
    assert rows._texts.size == arena
    assert rows._texts.base is None
