"""What the caption rules count: characters, words, letters and the rest, for every script alike."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.caption_text.characters import character_tables

Counts = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Measures:
    """Counts of each caption, all int32 and as long as the captions.

    Attributes:
        words: runs of letters and numbers, joined by single hyphens and apostrophes; each letter of a
            script that puts no spaces is a word.
        repeated_words: words that occurred before in the caption, letter case aside.
        plain_words: runs of three Latin letters or more with neither numbers nor underscores, and
            letters of other scripts.
        letters: letters and their marks.
        visible: letters, marks, numbers, punctuation and symbols.
        controls: control characters but white space, private characters and U+FFFD.
        items: stretches with a word in them, between commas, semicolons, bars and number signs.
        longest_item: words of the longest of them.
        ats, angles, underscores: characters "@"; "<" and "&"; "_".
    """

    characters: Counts
    words: Counts
    repeated_words: Counts
    plain_words: Counts
    letters: Counts
    visible: Counts
    numbers: Counts
    controls: Counts
    items: Counts
    longest_item: Counts
    ats: Counts
    angles: Counts
    underscores: Counts


def measure(captions: pa.Array) -> Measures:
    """Count what the rules need of each caption."""
    # Compiled code takes a second to load, and the command line must start without it.
    from pipeline.caption_text.kernels import measure_rows

    counts = measure_rows(*_buffers(captions), *character_tables())
    return Measures(*np.ascontiguousarray(counts.T))


def site_and_caption_keys(sites: pa.Array, captions: pa.Array) -> npt.NDArray[np.uint64]:
    """Return a 64-bit hash of each site, which is the host and port of a URL, and its caption."""
    from pipeline.caption_text.kernels import hash_rows, hash_sites

    site = hash_sites(*_buffers(sites)) * np.uint64(0xC2B2AE3D27D4EB4F)
    keys: npt.NDArray[np.uint64] = hash_rows(*_buffers(captions)) ^ site
    return keys


def _buffers(
    texts: pa.Array,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the array's bytes, and where each row begins and ends in them; a null is empty."""
    texts = pc.fill_null(texts.cast(pa.large_string()), "")
    _, offsets, data = texts.buffers()
    bounds = np.frombuffer(offsets or bytes(8), np.int64)[texts.offset :][: len(texts) + 1]
    content = np.frombuffer(data or b"", np.uint8)
    # Some buffers are writable, and the loops would be compiled again for those.
    content.flags.writeable = False
    return content, bounds[:-1].copy(), bounds[1:].copy()
