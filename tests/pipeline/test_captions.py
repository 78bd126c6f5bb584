import gzip
import re
import string
import time
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import schemas
from pipeline.captions import REASONS, CaptionsConfig, judge, repeated_share, run
from pipeline.errors import ConfigError
from pipeline.pairs import pair_ids

DEFAULTS = CaptionsConfig()
LETTERS = string.ascii_lowercase


def reason(caption: str, **settings: object) -> str | None:
    return judge(pa.array([caption]), CaptionsConfig(**settings)).to_pylist()[0]  # type: ignore[no-any-return, arg-type]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A dog<br />on grass", "markup"),
        ("{{ product.title }} photo", "markup"),
        ("[caption id=5] A dog on grass", "markup"),
        (r"{\displaystyle a+b}", "markup"),
        ("&lt;b&gt;A dog", "markup"),
        ("IMG_1234.JPG", "file_name_or_url"),
        ("DSC 00123", "file_name_or_url"),
        ("IMG_20190312_112233", "file_name_or_url"),
        ("Screen Shot 2019-03-12 at 11.22.33 AM", "file_name_or_url"),
        ("https://example.com/a dog", None),
        ("https://example.com/a-dog", "file_name_or_url"),
        ("www.example.com", "file_name_or_url"),
        ("example.org", "file_name_or_url"),
        ("golden-retriever-on-grass", "file_name_or_url"),
        ("Wedding_Chairs_Plastic (7)", "file_name_or_url"),
        ("Image", "placeholder"),
        ("site logo", "placeholder"),
        ("image 12 of 30", "placeholder"),
        ("No image available", "placeholder"),
        ("Image coming soon", "placeholder"),
        ("Click to enlarge", "placeholder"),
        ("Loading...", "placeholder"),
        ("Share on Facebook", "placeholder"),
        ("dog", "too_short"),
        ("a b", "too_short"),
        ("犬", "too_short"),
        ("x " * 501, "too_long"),
        ("$19.99 - $29.99", "price_or_code"),
        ("AB 1234-56 X9", "price_or_code"),
        ("10.05.2019 12:30:11", "price_or_code"),
        ("* * * * ---- Dog !!!! **** ~~~~ A", "mostly_symbols"),
        ("Plumber in Bellevue 402-555-6600", "contact"),
        ("Write to jane.doe@example.com now", "contact"),
        ("Hotel, call us at (402) 555 6600", "contact"),
        ("dog, dogs, puppy, pet, pets, animal, cute, fluffy, brown, grass", "keyword_list"),
        ("red shoes buy red shoes cheap red shoes online red shoes", "repetition"),
    ],
)
def test_junk_names_its_rule(caption: str, expected: str | None) -> None:
    assert reason(caption) == expected


@pytest.mark.parametrize(
    "caption",
    [
        "Golden retriever",
        "A dog runs on the beach",
        "Photo of a golden retriever",
        "Logo of the Boston Red Sox",
        "Banner of the Second Crusade",
        "Icon of Saint Nicholas",
        "Image result for a dog on the moon",
        "Map of Paris, 1850",
        "iPhone 6s 64GB rose gold",
        "2015 Porsche 911 GT3",
        "100% cotton T-shirt",
        "Boeing 747-400 at take-off",
        "Blue dress only $19.99",
        "Ingredients: flour, eggs, milk, sugar and butter",
        "From left: Ann Lee, Bob Ray, Cy Dow, Di Fox, Ed Poe, Flo Kay, Gus Orr, Hal Jay, Ida May, Jo Ash in Rome after the match",
        "state-of-the-art kitchen",
        "Jean-Luc Picard",
        "Tom & Jerry",
        "<3 my dog",
        "Windows 95 & 98",
        "ISBN 978-3-16-148410-0 book cover",
        "Big Ben, Big Ben and more of Big Ben tower",
        "Собака на пляже",
        "犬が海辺を走る",
        "สุนัขวิ่ง",
        "كلب على الشاطئ",
        "कुत्ता समुद्र तट पर",
    ],
)
def test_descriptions_are_kept(caption: str) -> None:
    assert reason(caption) is None


DOCS = Path(__file__).parents[2] / "docs" / "captions.md"
ROWS = re.findall(r"^\| `(\w+)` \| `(.*)` \| `(.*)` \|$", DOCS.read_text(), re.MULTILINE)


@pytest.mark.parametrize(("rule", "dropped", "kept"), [row for row in ROWS if row[0] in REASONS])
def test_the_examples_of_the_documentation_are_true(rule: str, dropped: str, kept: str) -> None:
    assert reason(dropped) == rule
    assert reason(kept) is None


def test_every_rule_is_met_by_an_example_above() -> None:
    parameters = test_junk_names_its_rule.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert {expected for _, expected in parameters if expected} == set(REASONS)


@pytest.mark.parametrize(
    ("caption", "settings"),
    [
        ("dog", {"min_words": 1, "min_characters": 3}),
        (" ".join(f"{a}{b}word" for a in LETTERS for b in LETTERS[:8]), {"max_characters": 2000}),
        ("dog, cat, cow, pig, hen, ant, bee, fly, owl, elk", {"max_items": 50}),
        ("red shoes buy red shoes cheap red shoes online red shoes", {"max_repeated_share": 1.0}),
        ("IMG_1234.JPG is it", {"disabled": ("file_name_or_url",)}),
    ],
)
def test_a_looser_setting_keeps_more(caption: str, settings: dict[str, object]) -> None:
    assert reason(caption, **settings) is None


def test_disabled_rules_drop_nothing() -> None:
    captions = pa.array(["x", "IMG_1.JPG", "<br>"])
    nothing = judge(captions, CaptionsConfig(disabled=tuple(REASONS)))
    assert nothing.to_pylist() == [None, None, None]


def test_no_captions_give_no_verdicts() -> None:
    assert judge(pa.array([], pa.string()), DEFAULTS).to_pylist() == []


@given(st.lists(st.text(), max_size=5))
def test_any_text_is_judged(captions: list[str]) -> None:
    verdicts = judge(pa.array(captions, pa.string()), DEFAULTS).to_pylist()
    assert len(verdicts) == len(captions)
    assert set(verdicts) <= {None, *REASONS}


@given(st.text(max_size=200))
def test_a_verdict_depends_on_the_caption_alone(caption: str) -> None:
    among = judge(pa.array(["A dog on grass", caption, "IMG_1.JPG"]), DEFAULTS).to_pylist()
    assert among[1] == reason(caption)


@pytest.mark.parametrize(
    "unit", ["a", " ", "a, ", "-", "a_", "(", "&", "@a.", "1 ", "Loading ", "<a ", "no image ", "́"]
)
def test_long_captions_take_linear_time(unit: str) -> None:
    begun = time.monotonic()
    judge(pa.array([unit * (100_000 // len(unit))]), DEFAULTS)
    assert time.monotonic() - begun < 2


def test_repeated_share() -> None:
    assert repeated_share("Red red RED blue") == 0.5
    assert repeated_share("a b c") == 0
    assert repeated_share("") == 0


def test_a_stage_drops_with_reason_and_beginning(workspace, finish_stage, executor) -> None:  # type: ignore[no-untyped-def]
    captions = ["A dog on grass", "IMG_1234.JPG", "<br>" * 100]
    urls = [f"http://x/{i}" for i in range(3)]
    rows = pa.table(
        {
            "pair_id": pair_ids(urls, captions),
            "url": urls,
            "caption": captions,
            "caption_source": ["alt"] * 3,
            "page_url": [None] * 3,
            "source": ["s"] * 3,
            "source_offset": [0] * 3,
            "query_ids": [[1]] * 3,
            "language": ["en"] * 3,
            "language_probability": [0.9] * 3,
        },
        schema=schemas.LANGUAGES,
    )
    finish_stage("language", schemas.LANGUAGES, rows, rows.slice(0, 0))
    manifest = run(DEFAULTS, workspace, executor)
    assert manifest.drops == {"file_name_or_url": 1, "markup": 1}
    kept = workspace.read(manifest.parts[0], schemas.CAPTIONS)
    assert kept.equals(rows.slice(0, 1))
    drops = workspace.read(manifest.tables["drops"][0], schemas.DROPS)
    assert drops.column("detail").to_pylist() == ["IMG_1234.JPG", "<br>" * 30]
    assert drops.column("pair_id").to_pylist() == rows.column("pair_id").to_pylist()[1:]


def test_an_unknown_rule_is_named(workspace, executor) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=r"captions\.disabled names nonsense, expected among"):
        run(CaptionsConfig(disabled=("nonsense",)), workspace, executor)


def test_captions_people_wrote_are_kept(shared_data) -> None:  # type: ignore[no-untyped-def]
    with gzip.open(shared_data / "captions/multi30k/task1.val.en.gz", "rt") as file:
        assert set(judge(pa.array(file.read().splitlines()), DEFAULTS).to_pylist()) == {None}
    with gzip.open(shared_data / "captions/cc3m_validation.tsv.gz", "rt") as file:
        captions = [line.split("\t")[0] for line in file]
    assert sum(v is not None for v in judge(pa.array(captions), DEFAULTS).to_pylist()) <= 3
