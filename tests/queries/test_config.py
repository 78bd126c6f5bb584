import math

import pytest
from pydantic import ValidationError

from queries.config import BuildConfig, SourceConfig
from queries.presets import METACLIP_PMI, PRESETS, SOURCES


def test_without_a_preset_the_settings_are_those_of_the_builtin_list() -> None:
    assert BuildConfig() == BuildConfig(preset="builtin")
    assert BuildConfig().priority == SOURCES


def test_metaclip_counts_views_and_reads_its_pmi_as_a_ratio() -> None:
    config = BuildConfig(preset="metaclip")
    assert config.minimum_word_count == 100
    assert config.minimum_views == 70
    assert config.minimum_bigram_pmi == pytest.approx(math.log2(30), abs=1e-3)
    assert config.priority[-4:] == ("wordnet", "unigram", "bigram", "title")


def test_no_words_that_occur_a_hundred_times_can_have_a_pmi_of_thirty_bits() -> None:
    words_of_wikipedia, occurrences = 10_000_000_000, 100
    best = math.log2(words_of_wikipedia * occurrences / (occurrences * occurrences))
    assert METACLIP_PMI < best < 30


def test_the_papers_order_ends_with_the_synsets() -> None:
    assert BuildConfig(preset="paper").priority == (
        "user", "unigram", "bigram", "title", "wordnet",
    )  # fmt: skip


@pytest.mark.parametrize("preset", PRESETS)
def test_options_win_over_a_preset(preset: str) -> None:
    config = BuildConfig.model_validate(
        {"preset": preset, "minimum_views": 5, "priority": ["title"]}
    )
    assert config.minimum_views == 5
    assert config.priority == ("title",)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_source_alone_takes_what_a_preset_says_of_sources(preset: str) -> None:
    settings = SourceConfig.model_validate({"preset": preset})
    assert settings.minimum_word_count == 100


@pytest.mark.parametrize(
    "wrong",
    [{"preset": "laion"}, {"priority": ["wordnet", "wordnet"]}, {"priority": []}, {"priority": ["web"]},
     {"size": 0}, {"numbers": 0}, {"maximum_bigrams": 0}, {"score": 1}],
)  # fmt: skip
def test_a_setting_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        BuildConfig.model_validate(wrong)
