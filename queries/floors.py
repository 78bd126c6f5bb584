"""What a candidate must reach to become a query, and how to say which floor it missed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Figure = Literal["count", "pmi", "views", "redirects"]


@dataclass(frozen=True, kw_only=True)
class Floor:
    """One floor: what missing it means, the setting that moves it, and the figure compared with it."""

    about: str
    setting: str | None = None
    figure: Figure | None = None


FLOORS: Mapping[str, Floor] = {
    "word_count": Floor(
        about="occurs too rarely in Wikipedia", setting="minimum_word_count", figure="count"
    ),
    "pair_words": Floor(
        about="one of its words is rare in Wikipedia, or no content word",
        setting="minimum_bigram_word_count",
    ),
    "web_excess": Floor(
        about="one of its words is typical of web pages, not of Wikipedia",
        setting="maximum_web_excess",
    ),
    "no_title": Floor(about="no title of Wikipedia contains the pair"),
    "web_pmi": Floor(
        about="its words meet little more often than chance",
        setting="minimum_web_pmi",
        figure="pmi",
    ),
    "title_pairs": Floor(
        about="stands in too few titles of Wikipedia",
        setting="minimum_title_pairs",
        figure="count",
    ),
    "title_pmi": Floor(
        about="its words meet in titles little more often than chance",
        setting="minimum_title_pmi",
        figure="pmi",
    ),
    "bigram_count": Floor(
        about="occurs too rarely in Wikipedia", setting="minimum_bigram_count", figure="count"
    ),
    "bigram_pmi": Floor(
        about="its words meet little more often than chance",
        setting="minimum_bigram_pmi",
        figure="pmi",
    ),
    "bigram_limit": Floor(
        about="enough pairs that reach the floors are more frequent", setting="maximum_bigrams"
    ),
    "redirects": Floor(
        about="too few redirects lead to the article",
        setting="minimum_redirects",
        figure="redirects",
    ),
    "title_form": Floor(
        about="is a single word, very long, a survey such as a list, or has marks captions lack"
    ),
    "title_words": Floor(
        about="one of its words is rare in Wikipedia", setting="minimum_word_count"
    ),
    "views": Floor(about="is looked for too rarely", setting="minimum_views", figure="views"),
}
"""Every value of the column `missed`."""
