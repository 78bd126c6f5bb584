import pytest

from dedup.evaluation import published
from dedup.evaluation.evalsets import EvalSet
from pipeline.errors import ConfigError
from train.evaluation.templates import fill, shown, templates_for


def evalset(name: str, **settings: object) -> EvalSet:
    return EvalSet.model_validate({"name": name, "path": "x.zip", "format": "zip", **settings})


def test_own_templates_are_the_prompts_of_the_set() -> None:
    assert templates_for("own", evalset("x", prompts=["one {label}"])) == ("one {label}",)
    assert templates_for("plain", evalset("x")) == ("{label}",)
    assert len(templates_for("ensemble80", evalset("x"))) == 80


@pytest.mark.parametrize("name", ["CIFAR-10", "cifar10", "cifar_10"])
def test_the_papers_templates_are_found_by_the_name_of_the_set(name: str) -> None:
    assert templates_for("paper", evalset(name)) == published.templates("cifar10")


def test_the_set_whose_class_names_are_used_goes_before_its_own_name() -> None:
    templates = templates_for("paper", evalset("small", names="imagenet"))
    assert templates == published.templates("imagenet")


def test_a_set_that_is_not_in_the_paper_is_one_line() -> None:
    with pytest.raises(ConfigError, match="evaluation set fashion is none of the paper's"):
        templates_for("paper", evalset("fashion"))


def test_every_name_of_a_class_is_put_into_every_template() -> None:
    assert fill(["a {label}.", "{label}"], "happy|smiling") == [
        "a happy.", "happy", "a smiling.", "smiling",
    ]  # fmt: skip
    assert shown("happy|smiling") == "happy"
