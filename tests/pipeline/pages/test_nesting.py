import time

import pytest

from pipeline.pages.nesting import find_depth


@pytest.mark.parametrize(
    "page",
    [
        "<span></x>" * 2000,
        "<rt>" * 2000 + "</x>" * 2000,
        "<svg>" + "<g>" * 2000 + "</x>" * 2000,
        "<svg>" + "<tr>" * 2000,
        "<svg>" + "<g a=/>" * 2000,
        "<svg>" + "<g><![CDATA[></g>]]>" * 2000,
        "<li><dd>" * 2000,
        "<optgroup>" * 2000,
        "<span><div></span></div>" * 2000,
        "<span><!-- </span> -->" * 2000,
        "<span><!</span>" * 2000,
        "<span a='</span>'>" * 2000,
        "<span><script></span></script>" * 2000,
        '<i a=b=">' + "<div>" * 2000 + '">',
    ],
)
def test_what_nests_counts(page: str) -> None:
    assert find_depth(page, 1001) == 1001


@pytest.mark.parametrize(
    "page",
    [
        "<div></div>" * 2000,
        "<p>x" * 2000,
        "<ul>" + "<li><span>x" * 2000,
        "<dl>" + "<dt>x<dd>y" * 2000,
        "<select>" + "<option>x" * 2000,
        "<table>" + "<tr><td><span>x" * 2000,
        "<b><div></b></div>" * 2000,
        "<h1></h2>" * 2000,
        "<ruby>x<rt>y</ruby>" * 2000,
        "<svg>" + '<path d="M0 0"/><rect x=1 />' * 2000 + "</svg>",
        "<svg/>" * 2000,
        "<br><img src=a>" * 2000,
        "<script>" + "<div>" * 2000 + "</script>",
        "<!--" + "<div>" * 2000 + "-->",
    ],
)
def test_what_ends_does_not_count(page: str) -> None:
    assert find_depth(page, 1001) <= 4


@pytest.mark.parametrize(
    "page",
    [
        "<div><object>" + "<span>" * 900 + "</div>" * 150_000,
        "<a" * 500_000,
        "<a b='" * 200_000,
        "<!--" * 250_000,
        "<svg>" + "<![CDATA[" * 100_000,
        "<script>" * 130_000,
        "<g" + " a" * 500_000 + "/>",
    ],
    ids=range(7),
)
def test_no_page_takes_long(page: str) -> None:
    begun = time.process_time()
    find_depth(page, 1001)
    assert time.process_time() - begun < 3
