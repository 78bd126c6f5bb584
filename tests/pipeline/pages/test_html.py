import time

import pytest

from pipeline.inputs.pairs import BrokenRecord, Reference, Skipped
from pipeline.pages.html import MAX_IMAGES, MAX_METAS, find_images, largest_of_srcset

PAGE = "http://h.example/d/p.html"


def images(page: str) -> list[Reference | Skipped]:
    return list(find_images(page.encode(), page_url=PAGE, charset=None, offset=5))


def urls(page: str) -> list[str]:
    return [i.url if isinstance(i, Reference) else i.reason for i in images(page)]


def test_an_image_is_found_with_address_and_text() -> None:
    expected = Reference("http://h.example/d/a.jpg", "A dog & a cat", "alt", PAGE, 5)
    assert images('<p><IMG SRC=a.jpg ALT="A dog &amp; a cat">') == [expected]


@pytest.mark.parametrize(
    ("attributes", "url"),
    [
        ('src="a.jpg" data-src="b.jpg"', "http://h.example/d/b.jpg"),
        ('src="a.jpg" data-src="data:image/gif;base64,R0"', "http://h.example/d/a.jpg"),
        ('src="a.jpg" data-src="true"', "http://h.example/d/a.jpg"),
        ('src="a.jpg" srcset="b.jpg 2x"', "http://h.example/d/a.jpg"),
        ('src="data:,x" srcset="b.jpg 1x, c.jpg 2x"', "http://h.example/d/c.jpg"),
        ('src="blank.gif" data-srcset="b.jpg 100w, c.jpg 50w"', "http://h.example/d/b.jpg"),
        ('srcset="b.jpg"', "http://h.example/d/b.jpg"),
        ('src="data:,x"', "data_url"),
        ('src="blob:abc" data-src="data:,x"', "bad_scheme"),
        ('data-src="data:image/gif;base64,R0"', "data_url"),
        ('src="http://[/"', "bad_url"),
        ('src=" "', "no_url"),
        ("", "no_url"),
    ],
)
def test_the_first_usable_address_counts(attributes: str, url: str) -> None:
    assert urls(f"<img {attributes} alt=text>") == [url]


def test_a_picture_gives_an_address_where_the_image_has_none() -> None:
    sources = '<source srcset="s.webp 1x, l.webp 3x"><source data-srcset="z.jpg">'
    assert urls(f"<picture>{sources}<img alt=text></picture>") == ["http://h.example/d/l.webp"]
    assert urls(f'<picture>{sources}<img src="a.jpg" alt=text></picture>') == [
        "http://h.example/d/a.jpg"
    ]


@pytest.mark.parametrize(
    ("srcset", "largest"),
    [
        ("a.jpg 100w, b.jpg 300w,c.jpg 200w", "b.jpg"),
        ("a.jpg, b.jpg 2x", "b.jpg"),
        ("a.jpg 2x, b.jpg 2.0x", "a.jpg"),
        ("a,b.jpg 2x, c.jpg", "a,b.jpg"),
        ("data:image/gif;base64,AA== 1x, b.jpg 2x", "b.jpg"),
        ("a.jpg -5w", "a.jpg"),
        (" , ,, ", None),
        ("x" * 20_000, None),
    ],
)
def test_the_largest_of_a_srcset(srcset: str, largest: str | None) -> None:
    assert largest_of_srcset(srcset) == largest


def test_addresses_stand_relative_to_the_base() -> None:
    assert urls("<base href='/r/'><img src=a.jpg alt=x>") == ["http://h.example/r/a.jpg"]
    assert urls("<base target=_top><base href=//b/><img src=a alt=x>") == ["http://b/a"]
    assert urls("<base href='data:,'><img src=a.jpg alt=x>") == ["http://h.example/d/a.jpg"]


def test_images_without_scripts_count_and_those_in_comments_scripts_and_templates_do_not() -> None:
    page = (
        "<noscript><img src=1 alt=x></noscript><!-- <img src=2 alt=x> -->"
        "<script>'<img src=3 alt=x>'</script><template><img src=4 alt=x></template>"
        "<textarea><img src=5 alt=x></textarea>"
    )
    assert urls(page) == ["http://h.example/d/1"]


def test_each_image_is_one_row() -> None:
    found = images("<img><img src=a><img src=a alt=''><img src=a alt=b><img src=a alt=b>")
    reasons = [i.reason if isinstance(i, Skipped) else "pair" for i in found]
    assert reasons == ["no_url", "no_caption", "no_caption", "pair", "pair"]


@pytest.mark.parametrize(
    "page",
    [
        "<font><div>" * 40_000 + "</font>" * 40_000 + "<img src=a alt=b>",
        "<img " + " ".join(f"a{i}=x" for i in range(100_000)) + " src=a alt=b>",
        "x" * 300_000 + "<p><img " + " ".join(f"a{i}" for i in range(40_000)) + ">",
        "<span></x>" * 20_000,
    ],
    ids=["nested", "attributes", "attributes behind a longer text", "ends of nothing"],
)
def test_a_page_made_to_keep_the_parser_busy_is_refused(page: str) -> None:
    begun = time.monotonic()
    with pytest.raises(BrokenRecord, match="more than"):
        images(page)
    assert time.monotonic() - begun < 5


def test_many_images_of_one_picture_take_linear_time() -> None:
    begun = time.monotonic()
    page = "<picture>" + "<source srcset='data:x 1x'>" * 2000 + "<img alt=x>" * 2000 + "</picture>"
    assert len(images(page)) == 2000
    assert time.monotonic() - begun < 5


def texts(page: str) -> list[tuple[str, str]]:
    return [(i.caption_source, i.caption) for i in images(page) if isinstance(i, Reference)]


def test_each_text_of_an_image_is_a_pair_and_equal_ones_are_one() -> None:
    figure = "<figure><div><img src=a alt='A dog' title='Rex '></div><figcaption>%s</figcaption></figure>"
    assert texts(figure % "Rex\n at <b>home</b>") == [
        ("alt", "A dog"),
        ("title", "Rex"),
        ("figcaption", "Rex at home"),
    ]
    assert texts(figure % "<p>Rex</p>") == [("alt", "A dog"), ("title", "Rex")]
    assert texts("<img src=a alt=Rex title=' Rex'>") == [("alt", "Rex")]
    assert texts("<img src=a alt=' ' title=Rex>") == [("title", "Rex")]


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("A<br>dog", "A dog"),
        ("<p>A</p><p>dog</p>", "A dog"),
        ("A &amp; B", "A & B"),
        ("A<!-- big --> dog<script>x()</script><style>y</style>", "A dog"),
        ("A <noscript>dog</noscript>", "A dog"),
        ("<img alt=no src=b>A", "A"),
        ("<table><tr><td>A<td>dog</table>", "A dog"),
    ],
)
def test_a_caption_is_what_can_be_seen(markup: str, text: str) -> None:
    found = texts(f"<figure><img src=a><figcaption>{markup}</figcaption></figure>")
    assert [caption for source, caption in found if source == "figcaption"][-1:] == [text]


def test_a_caption_belongs_to_its_own_figure_alone() -> None:
    inner = "<figure><img src=b>%s</figure>"
    page = f"<img src=x><figure><img src=a>{inner % ''}<figcaption>Both</figcaption></figure><img src=y>"
    assert [i.url for i in images(page) if isinstance(i, Reference)] == ["http://h.example/d/a"]
    two = f"<figure>{inner % '<figcaption>B</figcaption>'}<img src=a><figcaption>A</figcaption></figure>"
    assert texts(two) == [("figcaption", "B"), ("figcaption", "A")]


@pytest.mark.parametrize(
    ("metas", "expected"),
    [
        ("image=a title=T description=D", [("a", "og_description", "D"), ("a", "og_title", "T")]),
        ("title=T image=a image:alt=A", [("a", "og_alt", "A")]),
        ("image=a image=b image:alt=B title=T", [("a", "og_title", "T"), ("b", "og_alt", "B")]),
        ("image:url=a image:secure_url=b title=T", [("a", "og_title", "T")]),
        ("title=T description=D", []),
        ("image:alt=A image=a description=T title=T", [("a", "og_description", "T")]),
    ],
)
def test_open_graph_gives_pairs(metas: str, expected: list[tuple[str, str, str]]) -> None:
    tags = [
        f"<meta property='og:{name}' content='{value}'>"
        for name, value in (m.split("=") for m in metas.split())
    ]
    found = images("".join(tags))
    assert [
        (r.url.rpartition("/")[2], *r[2:0:-1]) for r in found if isinstance(r, Reference)
    ] == expected


def test_an_image_of_open_graph_without_text_or_address_is_a_drop() -> None:
    found = images("<meta property=og:image content=a><meta name=og:image content=''>")
    assert [i.reason for i in found if isinstance(i, Skipped)] == ["no_caption", "no_url"]


@pytest.mark.parametrize(
    "page",
    ["<img>" * (MAX_IMAGES + 1), "<meta property=og:title content=a>" * (MAX_METAS + 1)],
    ids=["images", "metas"],
)
def test_a_page_with_too_many_images_or_metas_is_refused(page: str) -> None:
    with pytest.raises(BrokenRecord, match="more than"):
        images(page)
