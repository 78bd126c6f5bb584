import hashlib

import pytest

from dedup.evaluation import published
from dedup.evaluation.readers.settings import EvalSet, is_template
from pipeline.errors import ConfigError
from pipeline.runtime.settings import read_settings


def test_a_pattern_stands_for_every_choice() -> None:
    assert published.expand("a (|bad )photo of (a|the) x") == [
        "a photo of a x",
        "a photo of the x",
        "a bad photo of a x",
        "a bad photo of the x",
    ]


def test_all_27_sets_of_the_paper_have_templates() -> None:
    assert len(published.SETS) == 27


@pytest.mark.parametrize("name", published.TEMPLATES)
def test_every_template_has_a_place_for_the_label_and_occurs_once(name: str) -> None:
    found = published.templates(name)
    assert all(is_template(template) for template in found)
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("name", "count", "digest"),
    [
        ("imagenet", 80, "c10ca7ff66cb74bb"),
        ("caltech101", 34, "c9ac98d216cba4f1"),
        ("cifar10", 18, "b005a612c1b08421"),
        ("ucf101", 48, "0d8c8d9ca48c622c"),
        ("kinetics700", 28, "499b33d092983930"),
        ("resisc45", 18, "5db862a621aea9f6"),
    ],
)
def test_the_templates_are_the_published_ones(name: str, count: int, digest: str) -> None:
    # Digests of the sorted published lists, so that a slip in a pattern shows.
    found = sorted(published.templates(name))
    assert len(found) == count
    assert hashlib.sha256("\n".join(found).encode()).hexdigest()[:16] == digest


def test_plain_is_the_label_alone() -> None:
    assert published.templates("plain") == ("{label}",)


@pytest.mark.parametrize(
    ("evalset", "class_name", "label"),
    [
        ("imagenet", "n01440764", "tench"),
        ("imagenet", "999", "toilet paper"),
        ("imagenet", "1000", None),
        ("imagenet", "n00000000", None),
        ("imagenet", "²", None),
        ("country211", "CI", "Cote d'Ivoire"),
        ("flowers102", "1", "pink primrose"),
        ("flowers102", "0", None),
        ("gtsrb", "00014", "stop"),
        ("gtsrb", "14", "stop"),
        ("fer2013", "happy", "happy|smiling"),
        ("fer2013", "3", "happy|smiling"),
        ("ucf101", "ApplyEyeMakeup", "Apply Eye Makeup"),
        ("fgvc_aircraft", "707-320", "707-320"),
        ("sun397", "apartment_building/outdoor", "apartment building outdoor"),
    ],
)
def test_a_class_has_the_name_of_the_paper(
    evalset: str, class_name: str, label: str | None
) -> None:
    assert published.class_label(evalset, class_name) == label


def test_a_set_takes_both_by_name() -> None:
    evalset = EvalSet(name="a", path="b", prompts="ensemble80", names="imagenet")  # type: ignore[arg-type]
    assert len(evalset.prompts) == 80
    assert evalset.label("n01443537") == "goldfish"
    assert evalset.label("n99999999") == "n99999999"


def test_labels_of_the_file_come_before_published_names() -> None:
    evalset = EvalSet(name="a", path="b", names="imagenet", labels={"n01443537": "fish of gold"})
    assert evalset.label("n01443537") == "fish of gold"


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("prompts", "a.prompts is 'cifar11', expected a list of templates, or one of: plain, ensemble80, birdsnap"),
        ("names", "a.names is 'cifar11', expected one of: caltech101, country211"),
    ],
)  # fmt: skip
def test_an_unknown_name_is_one_line(key: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_settings(EvalSet, {"name": "a", "path": "b", key: "cifar11"}, where="a")
