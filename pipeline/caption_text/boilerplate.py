"""Find captions that a site puts on many images, over all parts, in bounded memory.

Each part gets a file of counts: how often each (site, caption) occurs in it, as hashes, cut into as
many pieces as there are partitions, by the hash. A partition adds up its piece of every file and
lists the keys that occur often enough. Pairs are distinct, so a key's count is the number of image
addresses with the same caption.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.caption_text.measures import site_and_caption_keys
from pipeline.runtime import storage
from pipeline.runtime.manifest import Part

Keys = npt.NDArray[np.uint64]

# A partition holds 8 bytes of key and 4 of count per pair at most, and twice as much while it sorts.
KEYS_PER_PARTITION = 8_000_000

_COUNTS = pa.schema([("key", pa.uint64()), ("count", pa.uint32())])
_KEYS = pa.schema([("key", pa.uint64())])


def count_partitions(pairs: int) -> int:
    """Return how many partitions `pairs` need."""
    return max(1, -(-pairs // KEYS_PER_PARTITION))


def site_keys(pairs: pa.Table) -> Keys:
    """Return a hash of each pair's site and caption.

    The site is the host of the page where that is known, for many sites share one host of images.
    """
    sites = pc.coalesce(pairs.column("page_url"), pairs.column("url")).combine_chunks()
    return site_and_caption_keys(sites, pairs.column("caption").combine_chunks())


def write_counts(path: str, keys: Keys, partitions: int) -> Part:
    """Write how often each key occurs, in as many pieces as there are partitions."""
    distinct, counts = np.unique(keys, return_counts=True)
    starts = [-(-(i << 64) // partitions) for i in range(1, partitions)]
    cuts = np.searchsorted(distinct, np.array(starts, np.uint64)).tolist()
    table = pa.table([distinct, counts.astype(np.uint32)], schema=_COUNTS)
    bounds = [0, *cuts, len(table)]
    pieces = [table.slice(a, b - a) for a, b in pairwise(bounds)]
    return _write(path, pieces, _COUNTS)


def find_boilerplate(files: Sequence[str], partition: int, least: int) -> Keys:
    """Return the keys of one partition that occur at least so often in all files, ascending."""
    pieces = [_read(path, partition) for path in files]
    table = pa.concat_tables([piece.select(_COUNTS.names) for piece in pieces])
    summed = table.group_by("key").aggregate([("count", "sum")])
    often = summed.filter(pc.greater_equal(summed.column("count_sum"), least))
    return np.sort(often.column("key").to_numpy())


def write_keys(path: str, keys: Keys) -> Part:
    """Write what `find_boilerplate` found."""
    return _write(path, [pa.table([keys], schema=_KEYS)], _KEYS)


def is_boilerplate(keys: Keys, files: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return which keys are among those that the partitions' files list, read one at a time."""
    found = np.zeros(len(keys), bool)
    for path in files:
        listed = _read(path, 0).column("key").to_numpy()
        found |= np.isin(keys, listed)
    return found


def _write(path: str, pieces: Sequence[pa.Table], schema: pa.Schema) -> Part:
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with (
        storage.atomic_output(path) as file,
        pa.ipc.new_file(file, schema, options=options) as writer,
    ):
        for piece in pieces:
            writer.write_batch(
                pa.record_batch([c.combine_chunks() for c in piece.columns], schema=schema)
            )
    rows = sum(piece.num_rows for piece in pieces)
    return Part(path=path, rows=rows, bytes=file.size, sha256=file.sha256)


def _read(path: str, piece: int) -> pa.Table:
    with storage.open_input(path) as file:
        return pa.Table.from_batches([pa.ipc.open_file(file).get_batch(piece)])
