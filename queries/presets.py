"""Query lists by name: the built-in one, MetaCLIP's recipe, and the one CLIP's paper words.

MetaCLIP keeps a bigram from a PMI of 30 on. In bits that would be a pair which occurs
2^30 times as often as chance has it. A word that occurs c times bounds the ratio by N / c, for N words
in all, so that no pair of words that occur a hundred times reaches 30 bits in any Wikipedia (see
docs/queries.md). Here the 30 is the ratio itself.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

Source = Literal["user", "number", "wordnet", "unigram", "bigram", "title"]
SOURCES: tuple[Source, ...] = get_args(Source)
Preset = Literal["builtin", "metaclip", "paper"]

METACLIP_PMI = round(math.log2(30), 3)
METACLIP_BIGRAMS = 100_646

_AS_PUBLISHED: Mapping[str, Any] = {
    "minimum_word_count": 100,
    "minimum_bigram_word_count": 100,
    "content_bigrams": False,
    "minimum_web_pmi": METACLIP_PMI,
    "minimum_title_pmi": METACLIP_PMI,
    "minimum_bigram_pmi": METACLIP_PMI,
    "maximum_bigrams": METACLIP_BIGRAMS,
    "minimum_views": 70,
}
PRESETS: Mapping[Preset, Mapping[str, Any]] = {
    "builtin": {},
    "metaclip": {
        **_AS_PUBLISHED,
        "priority": ("user", "number", "wordnet", "unigram", "bigram", "title"),
    },
    "paper": {**_AS_PUBLISHED, "priority": ("user", "unigram", "bigram", "title", "wordnet")},
}
"""Each preset's settings where they differ from the defaults, which are those of the built-in list."""
