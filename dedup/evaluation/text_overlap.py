"""Find the corpus captions that repeat captions of evaluation sets, by runs of words.

Both sides are normalised like everything else here (`queries.text`, rules "words") and left with their
words alone, without punctuation. A caption of eight words or more is looked up by its runs of four, and
counts as repeated where a share of them, `min_text_overlap`, stands in the corpus caption. A shorter one
is repeated where the two are equal as a whole; fewer than four words are found everywhere and not
compared. Texts to evaluate language models with are compared by runs of 8 words (70% of them, PaLM) or
13 (GPT-3), which captions of ten words hardly have: docs/evaluation_sets.md has what was measured.

Runs that many captions share, "this is a picture of" for one, would bring together most captions with
most. So of n runs, m of which are needed, a caption is looked up by its n - m + 1 rarest alone: what has
m of them has one of these. All its runs are then counted for what was found so.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.evaluation.decontaminate import FOUND, ORDER
from dedup.evaluation.evalsets import EvalSet
from pipeline.matching.token_kernels import number_tokens
from pipeline.matching.trie import BLOCK_ROWS, caption_bytes, text_rows
from pipeline.matching.trie_tables import Bytes, Ids, Offsets, Words
from pipeline.runtime.compiled import compiled, inlined
from pipeline.runtime.parquet import read_parquet

RUN: Final = 4
# Captions of fewer words are compared as a whole.
LONG: Final = 8
# Bits of a hash by which most runs are told to be in no evaluation caption: 16 MB.
_SIEVE_BITS: Final = 24
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)
_PRIME: Final = np.uint64(0x100000001B3)
_HALF: Final = np.uint64(32)

Positions = npt.NDArray[np.int64]
Value = TypeVar("Value", bound=np.generic)


@dataclass(frozen=True, kw_only=True)
class CaptionIndex:
    """The captions of all sets, by the runs in them.

    Attributes:
        pictures: evalset, split and item of each caption; those of one picture repeat.
        runs: how many distinct runs each caption has, at least 1.
        least: how many of them a corpus caption must have.
        keys: hashes of all runs, ascending.
        starts: of each key, then the end; captions[starts[i]:starts[i + 1]] are looked up by the i-th key.
        ends: of each caption; its keys, by their number, are contents[ends[i]:ends[i + 1]].
        sieve: for each top bits of a hash, whether some key has them.
    """

    pictures: pa.Table
    runs: Positions
    least: Positions
    keys: Words
    starts: Positions
    captions: Positions
    ends: Positions
    contents: Positions
    sieve: npt.NDArray[np.bool_]


def load_captions(paths: tuple[str, ...], evalsets: Sequence[EvalSet]) -> CaptionIndex:
    """Return the captions in files of EVALUATION_PICTURES; kept for the worker's next tasks."""
    return _load(paths, tuple((evalset.name, evalset.min_text_overlap) for evalset in evalsets))


@cache
def _load(paths: tuple[str, ...], overlaps: tuple[tuple[str, float], ...]) -> CaptionIndex:
    columns = ["evalset", "split", "item", "captions"]
    tables = [read_parquet(path, columns=columns).cast(_EMPTY.schema) for path in paths]
    return index_captions(pa.concat_tables([_EMPTY, *tables]), dict(overlaps))


_EMPTY: Final = pa.schema(
    [*((name, pa.string()) for name in ("evalset", "split", "item")), ("captions", pa.list_(pa.string()))]
).empty_table()  # fmt: skip


def index_captions(pictures: pa.Table, overlaps: dict[str, float]) -> CaptionIndex:
    """Index the captions of pictures.

    Args:
        pictures: evalset, split, item and captions.
        overlaps: `min_text_overlap` of each set.
    """
    captions = pictures.column("captions").combine_chunks()
    owners = np.asarray(captions.value_parent_indices())
    hashes, offsets = hash_runs(pa.chunked_array([captions.flatten()]), is_corpus=False)
    caption = np.repeat(np.arange(len(owners)), np.diff(offsets))
    hashes, caption = _distinct(hashes, caption)
    runs = np.bincount(caption, minlength=len(owners))
    keys, key, frequency = np.unique(hashes, return_inverse=True, return_counts=True)
    sieve = np.zeros(1 << _SIEVE_BITS, np.bool_)
    sieve[keys >> np.uint64(64 - _SIEVE_BITS)] = True
    named = pictures.drop_columns(["captions"]).take(pa.array(owners))
    shares = np.array([overlaps[name] for name in named.column("evalset").to_pylist()])
    # Less a little, so that 0.7 of 10 runs are 7 whatever the rounding.
    least = np.ceil(runs * shares - 1e-9).astype(np.int64)
    ends = np.append(0, np.cumsum(runs))
    order = np.lexsort((key, frequency[key], caption))
    key, caption = key[order], caption[order]
    is_rare = np.arange(len(key)) - ends[caption] <= (runs - least)[caption]
    by_key = np.argsort(key[is_rare], kind="stable")
    return CaptionIndex(
        pictures=named,
        runs=runs,
        least=least,
        keys=keys,
        starts=np.searchsorted(key[is_rare][by_key], np.arange(len(keys) + 1)),
        captions=caption[is_rare][by_key],
        ends=ends,
        contents=key,
        sieve=sieve,
    )


def find_caption_overlaps(captions: pa.ChunkedArray, evaluation: CaptionIndex) -> pa.Table:
    """Return FOUND: which captions repeat an evaluation caption, in ORDER.

    A picture is named once for a row, by the caption of it that is repeated most; `distance` is the
    share of that caption's runs that is not found.
    """
    rows, others, shares = [], [], []
    first = 0
    for block in _blocks(captions):
        row, caption, count = _matches(*hash_runs(block, is_corpus=True), evaluation)
        rows.append(row + first)
        others.append(caption)
        shares.append(1 - count / evaluation.runs[caption])
        first += len(block)
    none = np.empty(0, np.int64)
    return _best(
        np.concatenate([none, *rows]),
        np.concatenate([none, *others]),
        np.concatenate([np.empty(0), *shares]),
        evaluation.pictures,
    )


def hash_runs(captions: pa.ChunkedArray, *, is_corpus: bool) -> tuple[Words, Positions]:
    """Return the hashes of what each caption is looked up by, and where those of each caption begin.

    That is its runs of words, or itself where it is short. A short one of the corpus is both: it may
    also be most of a longer one of an evaluation set.
    """
    hashes, counts = [np.empty(0, np.uint64)], [np.zeros(1, np.int64)]
    for block in _blocks(captions):
        rows = text_rows(block, "words")
        _, data, bounds, numbers, offsets = number_tokens(rows, caption_bytes("words"))
        words = _hash_tokens(data, bounds)
        words[~_are_words(data, bounds)] = 0
        some, ends = _hash_runs(words, numbers, offsets, is_corpus)
        hashes.append(some)
        counts.append(np.diff(ends))
    return np.concatenate(hashes), np.cumsum(np.concatenate(counts))


def _matches(
    hashes: Words, offsets: Positions, evaluation: CaptionIndex
) -> tuple[Positions, Positions, Positions]:
    """Return rows, evaluation captions they repeat, and how many runs both have."""
    may_be = np.flatnonzero(evaluation.sieve[hashes >> np.uint64(64 - _SIEVE_BITS)])
    place = np.searchsorted(evaluation.keys, hashes[may_be])
    place[place == len(evaluation.keys)] = 0
    is_met = evaluation.keys[place] == hashes[may_be] if len(place) else np.zeros(0, np.bool_)
    row = np.searchsorted(offsets, may_be[is_met], side="right") - 1
    key, row = _distinct(place[is_met], row)
    firsts = np.append(np.flatnonzero(np.diff(row, prepend=-1)), len(row))
    found = _repeated(
        key,
        firsts,
        evaluation.starts,
        evaluation.captions,
        evaluation.ends,
        evaluation.contents,
        evaluation.least,
    )
    return row[found[:, 0]], found[:, 1], found[:, 2]


def _best(
    row: Positions, other: Positions, distance: npt.NDArray[np.float64], pictures: pa.Table
) -> pa.Table:
    """Return FOUND with each picture once a row, at its least distance."""
    found = pa.table(
        {
            "row": pa.array(row),
            **{n: pictures.column(n).take(pa.array(other)) for n in ("evalset", "split", "item")},
            "distance": pa.array(distance),
        }
    )
    keys = ["row", "evalset", "split", "item"]
    best = found.group_by(keys).aggregate([("distance", "min")])
    best = best.rename_columns([*keys, "distance"]).append_column(
        "method", pa.repeat("caption", len(best))
    )
    return best.select(FOUND.names).cast(FOUND).sort_by(ORDER)


def _distinct(values: npt.NDArray[Value], of: Positions) -> tuple[npt.NDArray[Value], Positions]:
    """Return each value once for what it is of, ordered by that."""
    order = np.lexsort((values, of))
    values, of = values[order], of[order]
    is_first = np.ones(len(of), np.bool_)
    is_first[1:] = (values[1:] != values[:-1]) | (of[1:] != of[:-1])
    return values[is_first], of[is_first]


def _blocks(captions: pa.ChunkedArray) -> list[pa.Array]:
    chunks = captions.chunks if isinstance(captions, pa.ChunkedArray) else [captions]
    return [
        chunk.slice(start, BLOCK_ROWS)
        for chunk in chunks
        for start in range(0, len(chunk), BLOCK_ROWS)
    ]


def _are_words(data: Bytes, bounds: Offsets) -> npt.NDArray[np.bool_]:
    """Return which tokens are words: every character that is none of a word is a token of its own."""
    first = data[bounds[:-1]]
    are_words = (first >= 0x30) & (first <= 0x39) | (first >= 0x61) & (first <= 0x7A)
    for token in np.flatnonzero(first >= 0x80):
        text = data[bounds[token] : bounds[token + 1]].tobytes().decode("utf-8", "replace")
        are_words[token] = unicodedata.category(text[0])[0] in "LMN"
    return are_words


@compiled
def _repeated(
    keys: Positions,
    firsts: Positions,
    starts: Positions,
    captions: Positions,
    ends: Positions,
    contents: Positions,
    least: Positions,
) -> Positions:
    """Return the first key of a row, the caption that the row repeats, and how many keys both have.

    The keys of the i-th row are keys[firsts[i]:firsts[i + 1]]; of the others, CaptionIndex has more.
    """
    found = np.empty((256, 3), np.int64)
    used = 0
    is_met = np.zeros(starts.size, np.bool_)
    looked_at = np.full(ends.size, -1, np.int64)
    for row in range(firsts.size - 1):
        own = keys[firsts[row] : firsts[row + 1]]
        is_met[own] = True
        for key in own:
            for caption in captions[starts[key] : starts[key + 1]]:
                if looked_at[caption] == row:
                    continue
                looked_at[caption] = row
                count = 0
                for other in contents[ends[caption] : ends[caption + 1]]:
                    count += is_met[other]
                if count < least[caption]:
                    continue
                if used == len(found):
                    more = np.empty((2 * used, 3), np.int64)
                    more[:used] = found
                    found = more
                found[used, 0] = firsts[row]
                found[used, 1] = caption
                found[used, 2] = count
                used += 1
        is_met[own] = False
    return found[:used].copy()


@compiled
def _hash_tokens(data: Bytes, bounds: Offsets) -> Words:
    """Return a hash of each token's bytes, never 0."""
    hashes = np.empty(bounds.size - 1, np.uint64)
    for token in range(hashes.size):
        key = _MIX
        for i in range(bounds[token], bounds[token + 1]):
            key = (key ^ np.uint64(data[i])) * _PRIME
        key = (key ^ (key >> _HALF)) * _MIX
        hashes[token] = key | np.uint64(1)
    return hashes


@compiled
def _hash_runs(
    words: Words, numbers: Ids, offsets: Offsets, is_corpus: bool
) -> tuple[Words, Offsets]:
    """Return what `hash_runs` says of rows of token numbers; the hash of a token that is no word is 0."""
    hashes = np.empty(numbers.size + offsets.size, np.uint64)
    ends = np.zeros(offsets.size, np.int64)
    row_words = np.empty(64, np.uint64)
    used = 0
    for row in range(offsets.size - 1):
        count = 0
        while row_words.size < offsets[row + 1] - offsets[row]:
            row_words = np.empty(2 * row_words.size, np.uint64)
        for i in range(offsets[row], offsets[row + 1]):
            if words[numbers[i]] != 0:
                row_words[count] = words[numbers[i]]
                count += 1
        if RUN <= count < LONG:
            hashes[used] = _hash_run(row_words, 0, count, count)
            used += 1
        if count >= LONG or is_corpus:
            for start in range(count - RUN + 1):
                hashes[used] = _hash_run(row_words, start, start + RUN, 0)
                used += 1
        ends[row + 1] = used
    return hashes[:used].copy(), ends


@inlined
def _hash_run(words: Words, start: int, end: int, seed: int) -> np.uint64:
    key = np.uint64(seed)
    for i in range(start, end):
        key = (key ^ words[i]) * _MIX
        key ^= key >> _HALF
    return key
