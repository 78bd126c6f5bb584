import csv
import gzip
import re
import string
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from pipeline import schemas
from pipeline.caption_text import boilerplate
from pipeline.caption_text.measures import measure, site_and_caption_keys
from pipeline.caption_text.rules import BOILERPLATE, PRESETS, RULES, mask_contacts
from pipeline.captions import REASONS, CaptionsConfig, explain, judge, run
from pipeline.errors import ConfigError
from pipeline.inputs.pairs import pair_ids
from tests.reference import captions as reference

DEFAULTS = CaptionsConfig()
LETTERS = string.ascii_lowercase


def reason(caption: str, **settings: object) -> str | None:
    return judge(pa.array([caption]), CaptionsConfig(**settings)).to_pylist()[0]  # type: ignore[no-any-return, arg-type]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("Caf\ufffd cr\ufffdme br\ufffdl\ufffde fran\ufffdaise", "control_characters"),
        ("<div>A dog on grass", "markup"),
        ("<b>A</b> <i>dog</i> <u>on grass", "markup"),
        ("A dog<!-- 1 -->", "markup"),
        ("{{ product.title }} photo", "markup"),
        ("[caption id=5] A dog on grass", "markup"),
        (r"{\displaystyle a+b}", "markup"),
        ("&lt;b&gt;&lt;img src=x&gt;A dog", "markup"),
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
        ("AAC_design program-KAI-V3_1", "file_name_or_url"),
        ("photo my dog_x1.jpg", "file_name_or_url"),
        ("собака-на-пляже", "file_name_or_url"),
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
        "A dog<br />on grass",
        "In <em>Portal</em> a player jumps",
        "Caf\ufffd in Paris",
        "Balloon over Cappadocia.jpg",
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


@pytest.mark.parametrize(
    ("rule", "dropped", "kept"), [row for row in ROWS if row[0] != BOILERPLATE]
)
def test_the_examples_of_the_documentation_are_true(rule: str, dropped: str, kept: str) -> None:
    assert reason(dropped) == rule
    assert reason(kept) is None


def test_every_rule_has_an_example_in_the_documentation() -> None:
    assert {row[0] for row in ROWS} >= {rule.reason for rule in RULES} - {"too_long"}


def test_every_rule_is_met_by_an_example_above() -> None:
    parameters = test_junk_names_its_rule.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert {expected for _, expected in parameters if expected} == {r.reason for r in RULES}


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


PIECES = (
    *"abAB12 .,;|#、，'’--_@<>&()$€犬猫สุクشك한比บÉßǅ½²Ⅳªº😀\n\u0301\u200d\u00ad\ufffd\ue000\x85\x00",
    *("<b>", "</b>", "<div>", "IMG_", ".jpg", "www.", "402-555-6600", "a@b.com", "+49 89 123456"),
    *("image ", "logo", "&lt;", "(7)", "dog ", "red shoes ", "the "),
)


@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=30).map("".join), max_size=4))
def test_rules_say_what_the_reference_says(captions: list[str]) -> None:
    expected = [reference.reason(caption, DEFAULTS) for caption in captions]
    assert judge(pa.array(captions, pa.string()), DEFAULTS).to_pylist() == expected


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join) | st.text())
def test_counts_are_those_of_the_reference(caption: str) -> None:
    counts = measure(pa.array(["é", caption, "a"])[1:2])
    words = reference.words(caption)
    assert counts.characters[0] == len(caption)
    assert (counts.words[0], counts.repeated_words[0]) == (len(words), len(words) - len(set(words)))
    assert counts.plain_words[0] == reference.plain_words(caption)
    assert counts.controls[0] == reference.controls(caption)
    items = reference.items(caption)
    assert (counts.items[0], counts.longest_item[0]) == (len(items), max(items, default=0))


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("Jean-Luc's dog", 2),
        ("rock ’n’ roll", 3),
        ("犬が走る", 4),
        ("สุนัข", 3),
        ("한국 사람", 2),
        ("कुत्ता समुद्र", 2),
        ("می\u200cخواهم", 1),
        ("- & -", 0),
    ],
)
def test_words_of_every_script_are_counted(caption: str, words: int) -> None:
    assert measure(pa.array([caption])).words[0] == words


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


def languages(captions: list[str], urls: list[str], pages: list[str | None]) -> pa.Table:
    count = len(captions)
    return pa.table(
        {
            "pair_id": pair_ids(urls, captions),
            "url": urls,
            "caption": captions,
            "caption_source": ["alt"] * count,
            "page_url": pages,
            "source": ["s"] * count,
            "source_offset": [0] * count,
            "blur_boxes": [None] * count,
            "query_ids": [[1]] * count,
            "language": ["en"] * count,
            "language_probability": [0.9] * count,
        },
        schema=schemas.LANGUAGES,
    )


def test_a_stage_drops_with_reason_and_beginning(workspace, finish_stage, executor) -> None:  # type: ignore[no-untyped-def]
    captions = ["A dog on grass", "IMG_1234.JPG", "<br>" * 100]
    rows = languages(captions, [f"http://x/{i}" for i in range(3)], [None] * 3)
    finish_stage("language", schemas.LANGUAGES, rows, rows.slice(0, 0))
    manifest = run(DEFAULTS, workspace, executor)
    assert manifest.drops == {"file_name_or_url": 1, "markup": 1}
    kept = workspace.read(manifest.parts[0], schemas.CAPTIONS)
    assert kept.equals(rows.slice(0, 1))
    drops = workspace.read(manifest.tables["drops"][0], schemas.DROPS)
    assert drops.column("detail").to_pylist() == ["IMG_1234.JPG", "<br>" * 30]
    assert drops.column("pair_id").to_pylist() == rows.column("pair_id").to_pylist()[1:]


@pytest.mark.parametrize("disabled", [(), (BOILERPLATE,)])
def test_boilerplate_is_counted_over_all_parts(
    workspace, finish_stage, executor, monkeypatch: pytest.MonkeyPatch, disabled: tuple[str, ...]
) -> None:  # type: ignore[no-untyped-def]
    # Three partitions.
    monkeypatch.setattr(boilerplate, "KEYS_PER_PARTITION", 8)
    tables = []
    for part in range(3):
        urls = [f"http://cdn{i}/{part}" for i in range(8)]
        pages = [f"http://WWW.shop.example/{i}" for i in range(4)] + [None] * 4
        captions = ["Best shoes here", "Our happy client", f"Shoe {part} red", "IMG_1.jpg"] * 2
        tables.append(languages(captions, urls, pages))
    far = languages(["Best shoes here"], ["http://x/"], ["http://other.example/"])
    third = languages(["Best shoes here"], ["http://cdn/x"], ["https://shop.example"])
    finish_stage("language", schemas.LANGUAGES, *tables, far, third)
    config = CaptionsConfig(boilerplate_urls=4, disabled=disabled)
    manifest = run(config, workspace, executor)
    # Four on the pages of one site; those without a page count by the host of the image.
    expected = {"file_name_or_url": 6} if disabled else {"file_name_or_url": 6, BOILERPLATE: 4}
    assert manifest.drops == expected
    kept = [workspace.read(part, schemas.CAPTIONS) for part in manifest.parts]
    left = pa.concat_tables(kept).column("caption").to_pylist().count("Best shoes here")
    assert left == (8 if disabled else 4)
    assert (manifest.rows_in, manifest.rows_out) == (26, 26 - sum(expected.values()))


@given(st.lists(st.integers(0, 2**64 - 1), max_size=30), st.integers(1, 7), st.integers(2, 4))
def test_partitions_find_what_one_count_finds(
    tmp_path_factory, keys: list[int], partitions: int, least: int
) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("counts")
    parts = [np.array(keys[i::2] + keys[: 2 * i], np.uint64) for i in range(2)]
    files = [
        boilerplate.write_counts(f"{folder}/{i}", part, partitions).path
        for i, part in enumerate(parts)
    ]
    found = [boilerplate.find_boilerplate(files, i, least) for i in range(partitions)]
    counts = Counter(np.concatenate(parts).tolist())
    expected = sorted(key for key, count in counts.items() if count >= least)
    assert np.concatenate(found).tolist() == expected


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        ("http://a.example/x", "https://www.A.example?y", True),
        ("http://user@a.example/x", "http://a.example#z", True),
        ("http://a.example:80/", "http://a.example/", False),
        ("http://a.example/", "http://b.example/", False),
        ("no url", "", True),
    ],
)
def test_sites_are_hosts(one: str, other: str, are_one: bool) -> None:
    keys = site_and_caption_keys(pa.array([one, other]), pa.array(["c", "c"]))
    assert (keys[0] == keys[1]) == are_one


@pytest.mark.parametrize(
    ("caption", "masked"),
    [
        ("Plumber in Bellevue 402-555-6600", "Plumber in Bellevue ***"),
        ("Ask jane.doe@example.com, or Jim", "Ask ***, or Jim"),
        ("(402-555-6600 402-555-6601)", "(*** ***)"),
        ("A dog on grass in 2015", "A dog on grass in 2015"),
    ],
)
def test_contacts_are_masked_where_they_stand(caption: str, masked: str) -> None:
    assert mask_contacts(pa.array(["x", caption])).to_pylist() == ["x", masked]


def test_masking_keeps_the_pair_and_changes_its_caption(workspace, finish_stage, executor) -> None:  # type: ignore[no-untyped-def]
    captions = ["Plumber in Bellevue 402-555-6600", "a@b.com"]
    rows = languages(captions, ["http://x/1", "http://x/2"], [None, None])
    finish_stage("language", schemas.LANGUAGES, rows)
    manifest = run(CaptionsConfig(contacts="mask"), workspace, executor)
    kept = workspace.read(manifest.parts[0], schemas.CAPTIONS)
    assert kept.column("caption").to_pylist() == ["Plumber in Bellevue ***"]
    assert kept.column("pair_id").to_pylist() == rows.column("pair_id").to_pylist()[:1]
    assert manifest.drops == {"too_short": 1}


@pytest.mark.parametrize(
    ("caption", "preset", "expected"),
    [
        ("IMG_1234.JPG", "laion", None),
        ("dogs", "laion", "too_short"),
        ("A dog", "datacomp", "too_short"),
        ("A red dog", "datacomp", None),
    ],
)
def test_a_preset_sets_what_is_not_given(caption: str, preset: str, expected: str | None) -> None:
    assert reason(caption, preset=preset) == expected


def test_settings_given_beside_a_preset_win() -> None:
    config = CaptionsConfig(preset="datacomp", min_words=1)
    assert (config.min_words, config.min_characters) == (1, 6)
    assert config.model_fields_set == {"preset", "min_words"}
    assert set(PRESETS["datacomp"]["disabled"]) | {"too_short"} == set(REASONS)


def test_an_explanation_names_every_rule_and_what_it_saw() -> None:
    told = explain(CaptionsConfig(disabled=("contact",)), "IMG_12.jpg at a@b.com <b>")
    assert told.startswith("kept: ")
    assert [line.split()[0] for line in told.splitlines()[3:]] == list(REASONS)
    rows = {line.split()[0]: line for line in told.splitlines()[3:]}
    assert rows["contact"].endswith("off")
    assert "found 'a@b.com" in rows["contact"]
    assert "1 plain tag" in rows["markup"]
    assert explain(DEFAULTS, "Image").startswith("dropped: placeholder: 'Image'")
    assert "found 'Image'" in explain(DEFAULTS, "Image")


@pytest.mark.parametrize("caption", ["", "\x00", "犬", "a" * 5000, "(?P<x>", "\u2028"])
def test_any_caption_can_be_explained(caption: str) -> None:
    verdict = reason(caption)
    assert explain(DEFAULTS, caption).startswith(f"dropped: {verdict}" if verdict else "kept")


def judged(shared_data: Path, sample: str) -> list[tuple[str, str | None]]:
    """Return of each caption that a person judged the judgement, and what the rules say."""
    table = pq.read_table(shared_data / "captions/test_10000.parquet", columns=["TEXT"])
    texts = table.column(0).combine_chunks().cast(pa.string())
    answers = judge(texts, DEFAULTS).to_pylist()
    with (Path(__file__).parent / "judged_captions.tsv").open() as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["sample"] == sample]
    for row in rows:
        text = texts[int(row["row"])].as_py()
        assert xxhash.xxh3_64_hexdigest(text.encode()) == row["xxh3"]
    return [(row["verdict"], answers[int(row["row"])]) for row in rows]


@pytest.mark.parametrize(("sample", "drops"), [("a", 7), ("b", 8), ("d", 100)])
def test_what_the_rules_drop_deserves_it(shared_data: Path, sample: str, drops: int) -> None:
    verdicts = [verdict for verdict, reason in judged(shared_data, sample) if reason]
    assert len(verdicts) >= 0.9 * drops
    assert verdicts.count("keep") <= 0.05 * len(verdicts)
    assert verdicts.count("drop") >= 0.85 * len(verdicts)


def test_an_unknown_rule_is_named(workspace, executor) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=r"captions\.disabled names nonsense, expected among"):
        run(CaptionsConfig(disabled=("nonsense",)), workspace, executor)


def test_captions_people_wrote_are_kept(shared_data) -> None:  # type: ignore[no-untyped-def]
    with gzip.open(shared_data / "captions/multi30k/task1.val.en.gz", "rt") as file:
        assert set(judge(pa.array(file.read().splitlines()), DEFAULTS).to_pylist()) == {None}
    with gzip.open(shared_data / "captions/cc3m_validation.tsv.gz", "rt") as file:
        captions = [line.split("\t")[0] for line in file]
    assert sum(v is not None for v in judge(pa.array(captions), DEFAULTS).to_pylist()) <= 3
