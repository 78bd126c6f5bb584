"""Queries from WordNet: the first lemma of every synset.

Reads a `dict` folder as Princeton publishes it (wndb(5WN)): `data.noun`, `data.verb`, `data.adj`
and `data.adv`, one synset a line, after a licence whose lines begin with two spaces.
"""

import re
from collections.abc import Iterator

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.runtime import storage
from queries.candidates import candidates
from queries.text import normalize

PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")

_SYNSET = re.compile(r"\d{8} \d\d [nvasr] [0-9a-f]{2} (\S+) ")
_SYNTACTIC_MARKER = re.compile(r"\((a|p|ip)\)$")


def wordnet_queries(folder: str) -> pa.Table:
    """Return the distinct normalised first lemmas of the synsets in a WordNet `dict` folder.

    Raises:
        InputError: if a line of a data file is not a synset.
        StorageError: if a data file is missing.
    """
    lemmas = {
        normalize(lemma)
        for part in PARTS_OF_SPEECH
        for lemma in first_lemmas(storage.join(folder, f"data.{part}"))
    }
    return candidates("wordnet", {"query": pa.array(filter(None, lemmas), pa.string())})


def first_lemmas(path: str) -> Iterator[str]:
    """Yield the first lemma of each synset of a data file, with spaces for underscores."""
    lines = storage.read_bytes(path).decode("utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        if line.startswith("  "):
            continue
        synset = _SYNSET.match(line)
        if synset is None:
            raise InputError(f"{path} line {number} is not a synset; expected a WordNet data file")
        yield _SYNTACTIC_MARKER.sub("", synset[1]).replace("_", " ")
