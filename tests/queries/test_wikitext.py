import pytest
from hypothesis import given
from hypothesis import strategies as st

from queries.text import tokens
from queries.wikitext import article_text


def words(wikitext: str) -> list[str]:
    """Return the words of a text, those on one line joined."""
    lines = (
        " ".join(t for t in tokens(line) if t.isalnum())
        for line in article_text(wikitext).split("\n")
    )
    return [line for line in lines if line]


@pytest.mark.parametrize(
    ("wikitext", "lines"),
    [
        ("'''Albedo''' is ''white'' '''''light'''''", ["albedo is white light"]),
        ("a [[dog]] and [[dog]]s and [[Canis|the dog]]s", ["a dog and dogs and the dogs"]),
        ("''Iliad'''s end, '''alkane'''s", ["iliad s end alkanes"]),
        ("== Early life ==\nborn", ["early life", "born"]),
        ("* one\n# two\n; term : meaning", ["one", "two", "term meaning"]),
        ("a&nbsp;b &amp; c&ndash;d &#233;", ["a b c d é"]),
        ("x<br>y<br/>z<p>w</p>", ["x", "y", "z", "w"]),
        ("CO<sub>2</sub> and <small>tiny</small>", ["co2 and tiny"]),
        ("see [http://a.org/x?y=z the site] or http://b.org/c, ok", ["see the site or ok"]),
        ("see [//a.org the site]", ["see the site"]),
        ("a < b and c > d", ["a b and c d"]),
        ("a <unknown x=1> b", ["a unknown x 1 b"]),
        ("__NOTOC__text__TOC__", ["text"]),
        ("[[:Category:Dogs]] [[:File:A.jpg]]", ["category dogs file a jpg"]),
        ("[[wikt:dog|dog]] [[Talk:Dog]]", ["dog talk dog"]),
        ("<nowiki>[[not]] a {{link}}</nowiki>", ["not a link"]),
    ],
)  # fmt: skip
def test_what_a_reader_sees_is_kept(wikitext: str, lines: list[str]) -> None:
    assert words(wikitext) == lines


@pytest.mark.parametrize(
    "hidden",
    [
        "{{Infobox\n| name = x\n| area = {{convert|5|km2}}\n}}",
        "{{a|[[File:x.jpg|thumb|y]]|}}",
        "{{x|{|\n| cell\n|}}}",
        "\n{| class=wikitable\n! head\n|-\n| cell || cell\n|}\n",
        "\n{|\n| outer\n{|\n| inner\n|}\n| outer\n|}\n",
        "\n::{|\n| indented\n|}\n",
        "<table><tr><td>cell</td></tr></table>",
        '<ref name="a">{{cite web|title=T}} see [[x]]</ref>',
        "<ref name=a />",
        "<REF>x</Ref >",
        "<!-- a [[b]] {{c -->",
        "<!-- x=http://a.org/b-->",
        "<math>\\frac{a}{b} < c</math>",
        "<gallery>\nFile:a.jpg|caption\n</gallery>",
        "<syntaxhighlight lang=c>int x;</syntaxhighlight>",
        "[[Category:Dogs|D]]",
        "[[de:Hund]]",
        "[[simple:Dog]]",
        "[[File:a.jpg|thumb|left|200px]]",
        "[[Image:a.jpg|alt=a dog]]",
        "{{{argument|default}}}",
    ],
)
def test_what_is_no_text_of_the_article_is_left_out(hidden: str) -> None:
    assert [w for line in words(f"before {hidden} after") for w in line.split()] == (
        ["before", "after"]
    )


def test_words_are_no_neighbours_across_what_was_left_out_of_a_sentence() -> None:
    assert words("weighs {{convert|5|kg}} and") == ["weighs", "and"]
    assert words("is <math>x</math> metres") == ["is", "metres"]
    assert words("a fact<ref>x</ref> stated") == ["a fact stated"]


def test_the_caption_of_a_picture_is_a_line_of_its_own() -> None:
    picture = "[[File:a.jpg|thumb|upright=1.2|alt=x|A [[golden retriever|dog]] in [[Paris]]{{cn}}]]"
    assert words(f"before {picture} after") == ["before", "a dog in paris", "after"]


@pytest.mark.parametrize(
    ("broken", "seen"),
    [
        ("a {{b", "a b"),
        ("a }} b", "a b"),
        ("a [[b c", "a b c"),
        ("a ]] b", "a b"),
        ("[[a {{b]] c", "a b c"),
        ("a <ref>b", "a b"),
        ("a <ref name=x", "a ref name x"),
        ("a <!-- b", "a"),
        ("{|\nb", "b"),
        ("a |} b", "a b"),
        ("{{Infobox\n| name = x\ntext", "infobox text"),
        ("<nowiki>[[a]]", "a"),
        ("<math>x", "x"),
        ("", ""),
    ],
)
def test_what_is_never_closed_hides_nothing_behind_it(broken: str, seen: str) -> None:
    assert " ".join(words(broken)) == seen


# A reading in quadratic time would take hours.
@pytest.mark.parametrize(
    "piece",
    ["{{", "}}", "[[", "]]", "{{a|", "[[a|", "[[File:a|", "<ref>", "<ref", "<b ", "<!--", "\n{|", "\n|}", "{|\n", "''",
     "'''a", "''a'''s", "==", "&", "&amp", "http://", "[//", "__A", "<nowiki>", "</ref>", "{{{", "\n ", "\n:", "1",
     "[[a{{b", "{{a|[[b|<i>''c''", '<div a="', "<math>x"],
)  # fmt: skip
@pytest.mark.parametrize("shape", ["{0}", "{0}{1}", "[[File:a|{0}]]", "{{{{{0}}}}}"])
def test_hostile_pages_take_no_longer_than_others(piece: str, shape: str) -> None:
    opened = piece * (200_000 // len(piece))
    closed = opened.translate(str.maketrans("[{<", "]}>"))
    assert len(article_text(shape.format(opened, closed))) <= 2 * len(opened) + 100


@given(st.lists(st.sampled_from(["{{", "}}", "[[", "]]", "|", "\n", "{|", "|}", "<ref>", "</ref>", "<!--", "-->", "a",
                                 "File:", "<nowiki>", "</nowiki>", "''", "http://", " ", "&amp;", "é", "<br"]),
                max_size=40).map("".join))  # fmt: skip
def test_no_order_of_marks_is_an_error(wikitext: str) -> None:
    assert isinstance(article_text(wikitext), str)


PLAIN = st.lists(st.sampled_from(["dog", "Éire", "犬", "x2"]), min_size=1, max_size=3).map(" ".join)
HIDING = st.sampled_from(
    ["{{{{t|{}}}}}", "<ref>{}</ref>", "<!--{}-->", "\n{{|\n|{}\n|}}\n", "[[Category:{}]]"]
)
SHOWING = st.sampled_from(["[[{}]]", "[[target|{}]]", "''{}''", "'''{}'''", "<span>{}</span>", "\n== {} ==\n",
                           "\n* {}\n", "[http://x.org {}]", "\n[[File:f.jpg|thumb|{}]]\n"])  # fmt: skip


@given(st.lists(st.tuples(st.one_of(HIDING, SHOWING), PLAIN, PLAIN), max_size=8))
def test_of_any_mixture_exactly_the_visible_words_are_left(
    pieces: list[tuple[str, str, str]],
) -> None:
    hiding = ("{{{{", "<ref", "<!--", "\n{{|", "[[Category")
    wikitext = " ".join(markup.format(text) + " " + after for markup, text, after in pieces)
    visible = ["" if markup.startswith(hiding) else text.casefold() for markup, text, _ in pieces]
    expected = [
        w
        for shown, (_, _, after) in zip(visible, pieces, strict=True)
        for w in f"{shown} {after.casefold()}".split()
    ]
    assert " ".join(words(wikitext)).split() == expected
