import bz2
import io
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from queries import dump
from queries.dump import Page, Unreadable, is_bzip2, is_disambiguation, parse_page, read_pages
from tests.queries.dumps import HEAD, TAIL, articles, multistream, page
from tests.queries.dumps import dump as dump_of

PAGES = articles(60, words=400)
PLAIN = dump_of(PAGES)
FILES = {
    "xml": PLAIN,
    "one stream": bz2.compress(PLAIN, 1),
    "many streams": multistream(PAGES, size=9, level=1),
}

# Five blocks.
LONG = bz2.compress(dump_of(articles(200, words=400)), 1)


def read(data: bytes, start: int = 0, end: int | None = None) -> list[Page | Unreadable]:
    return list(read_pages(io.BytesIO(data), start, len(data) if end is None else end))


def titles(data: bytes) -> list[str]:
    return [p.title if isinstance(p, Page) else p.reason for p in read(data)]


@pytest.mark.parametrize("kind", FILES)
def test_every_page_is_read_in_order(kind: str) -> None:
    found = read(FILES[kind])
    assert len(found) == 60
    first, alias, template = found[0], found[3], found[5]
    assert isinstance(first, Page)
    assert first[:4] == ("Article 0", 0, None, True)
    assert first.text.startswith("'''0''' is [[a link|golden gate]]. ")
    assert isinstance(alias, Page)
    assert (alias.title, alias.redirect_to) == ("Alias 3", "Article 2")
    assert isinstance(template, Page)
    assert (template.title, template.namespace) == ("Template:5", 10)


@pytest.mark.parametrize("kind", FILES)
@settings(max_examples=25)
@given(data=st.data())
def test_wherever_a_dump_is_cut_each_page_is_read_once(kind: str, data: st.DataObject) -> None:
    file = FILES[kind]
    cuts = data.draw(st.lists(st.integers(0, len(file)), max_size=5))
    bounds = [0, *sorted(cuts), len(file)]
    found = [p for start, end in pairwise(bounds) for p in read(file, start, end)]
    assert found == read(file)


def test_every_cut_of_a_small_dump_is_a_good_one() -> None:
    small = dump_of([page("A", "x"), page("B", "y")])
    for cut in range(len(small)):
        found = [*read(small, 0, cut), *read(small, cut)]
        assert [p.title for p in found if isinstance(p, Page)] == ["A", "B"], cut


def test_entities_are_characters() -> None:
    found = read(dump_of([page('Q & "A" <é>', "a &amp; <b> &lt; 犬", redirect_to='T & "U"')]))
    assert found == [Page('Q & "A" <é>', 0, 'T & "U"', True, "a &amp; <b> &lt; 犬")]


def test_of_several_revisions_the_last_is_read() -> None:
    raw = b"<page><title>A</title><ns>0</ns><revision><text>old</text></revision><revision><text>new</text></revision></page>"
    assert parse_page(raw) == Page("A", 0, None, True, "new")


def test_a_page_without_text_is_a_page() -> None:
    raw = b'<page><title>A</title><ns>0</ns><revision><text deleted="deleted" /></revision></page>'
    assert parse_page(raw) == Page("A", 0, None, True, "")


@pytest.mark.parametrize(
    ("raw", "seen"),
    [
        (b"<page><title>A</title><ns>0</ns>", "A: no element found"),
        (b"<page><title>A</title><ns>0</ns><b>\xff</b></page>", "A: not well-formed"),
        (b"<page><title>A</title><ns>&nbsp;</ns></page>", "A: undefined entity"),
        (b"<page><title>A</title><ns>zero</ns></page>", "A: invalid literal"),
        (b"<page><title>A</title></page>", "A: invalid literal"),
        (b"<page><ns>0</ns></page>", "no title"),
        (b'<page><!DOCTYPE a [<!ENTITY b "b">]><title>A</title></page>', "not well-formed"),
    ],
)
def test_a_broken_page_is_refused_by_name(raw: bytes, seen: str) -> None:
    found = parse_page(raw)
    assert isinstance(found, Unreadable)
    assert found.reason == "broken_page"
    assert seen in found.detail


def test_a_page_that_is_never_closed_hides_none() -> None:
    broken = page("B", "y").replace("  </page>\n", "")
    assert titles(dump_of([page("A"), broken, page("C")])) == ["A", "broken_page", "C"]
    assert titles((HEAD + page("A") + broken).encode()) == ["A", "broken_page"]


def test_a_page_of_many_megabytes_is_read_and_one_beyond_the_limit_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "word " * 900_000
    file = bz2.compress(dump_of([page("A"), page("Huge", text), page("C")]))
    huge = read(file)[1]
    assert isinstance(huge, Page)
    assert huge.text == text
    monkeypatch.setattr(dump, "MAX_PAGE_BYTES", 4_000_000)
    expected = ["A", "page_too_large", "C"]
    assert titles(file) == expected
    assert titles(bz2.decompress(file)) == expected
    for cut in range(0, len(file), 400):
        found = [*read(file, 0, cut), *read(file, cut)]
        assert [p.title if isinstance(p, Page) else p.reason for p in found] == expected


def test_a_damaged_block_costs_its_pages_and_says_where() -> None:
    file = bytearray(LONG)
    middle = len(file) // 2
    file[middle : middle + 30] = b"\0" * 30
    found = read(bytes(file))
    lost = [p for p in found if isinstance(p, Unreadable)]
    assert [p.reason for p in lost] == ["broken_page", "damaged_block"]
    assert lost[0].detail.endswith("a damaged block follows")
    assert lost[1].detail.startswith("at byte ")
    whole = read(LONG)
    kept = [p for p in found if isinstance(p, Page)]
    assert 100 < len(kept) < 199
    assert [p for p in whole if p in kept] == kept
    for cut in range(0, len(file), 997):
        assert [*read(bytes(file), 0, cut), *read(bytes(file), cut)] == found


def test_a_dump_that_is_cut_off_gives_what_it_has() -> None:
    file = LONG
    found = read(file[: len(file) // 2])
    assert [p.reason for p in found if isinstance(p, Unreadable)] == [
        "broken_page",
        "damaged_block",
    ]
    assert read(file)[: len(found) - 2] == found[:-2]
    plain = read(PLAIN[: len(PLAIN) // 2])
    assert isinstance(plain[-1], Unreadable)
    assert plain[-1].detail.endswith("the file ends here")


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"no dump", b"\x1f\x8b\x08"])
def test_what_is_no_dump_is_refused(data: bytes) -> None:
    with pytest.raises(InputError, match="neither bzip2 nor XML; expected a dump"):
        read(data)


def test_a_byte_order_mark_and_space_may_stand_first() -> None:
    assert not is_bzip2(io.BytesIO(b"\xef\xbb\xbf\n " + PLAIN))


def test_xml_that_is_no_dump_holds_no_page() -> None:
    assert read(b"<html><body>x</body></html>") == []
    assert read((HEAD + TAIL).encode()) == []


@pytest.mark.parametrize(
    "text",
    ["{{disambiguation}}", "{{Disambig}}", "{{dab}}", "{{Hndis|name=Doe, John}}", "{{Geodis}}", "{{ disambiguation page }}",
     "{{Human name disambiguation}}", "{{Airport_disambiguation|x}}", "{{Disambiguation cleanup|date=May 2026}}", "{{template:Dab}}"],
)  # fmt: skip
def test_a_template_tells_a_disambiguation(text: str) -> None:
    assert is_disambiguation(Page("A", 0, None, True, f"'''A''' may mean:\n* [[B]]\n{text}\n"))


@pytest.mark.parametrize(
    "text",
    ["{{disambiguation needed}}", "{{For|the planet|Mercury (disambiguation)}}", "{{Redirect|A|B|A (disambiguation)}}",
     "disambiguation", "{{dablink|x}}", "{{Use dmy dates}}"],
)  # fmt: skip
def test_a_mention_is_no_disambiguation(text: str) -> None:
    assert not is_disambiguation(Page("A", 0, None, True, text))


def test_a_title_tells_a_disambiguation_unless_it_only_leads_to_one() -> None:
    title = "Mercury (disambiguation)"
    assert is_disambiguation(Page(title, 0, None, True, ""))
    assert not is_disambiguation(Page(title, 0, "Mercury", True, "{{dab}}"))


@pytest.mark.parametrize("filler", [" ", "\n", "{{", "{{ ", "a ", "disambig "])
def test_no_page_makes_looking_for_disambiguations_slow(filler: str) -> None:
    text = "{{" + filler * (2_000_000 // len(filler)) + "x"
    assert not is_disambiguation(Page("A", 0, None, True, text))
