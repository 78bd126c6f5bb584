"""Shards that witmill packed, in a workspace, a folder or by a pattern, read through their index."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schemas
from pipeline.errors import CorruptWorkspace, InputError
from pipeline.runtime import storage
from pipeline.runtime.manifest import Manifest
from pipeline.runtime.manifest import digest as digest_of
from pipeline.runtime.workspace import Workspace
from pipeline.schemas import SHARD_INDEX
from pipeline.shards.corpus import STAGE, open_corpus
from train.samples.indexed import Indexed, parquet_errors, with_column
from train.samples.shard_cache import ShardCache

AT_ONCE = 16
"""Indexes looked at together: in an object store each is a request."""

_NEEDED = ("pair_id", "caption", "image_offset", "image_length")


@dataclass(frozen=True, kw_only=True)
class OwnShard:
    """A tar and its index; `sha256` of the index where it is recorded."""

    tar: str
    index: str
    rows: int
    sha256: str | None = None


def of_workspace(workspace: Workspace, cache: ShardCache | None) -> Indexed:
    """Return the samples of the stage "shard".

    Raises:
        MissingInput: if it has not finished or is out of date.
        CorruptWorkspace: if a file of it is missing or has another size.
    """
    return _of_manifest(workspace.finished(STAGE), workspace.path(STAGE), cache)


def of_folder(folder: str, cache: ShardCache | None) -> Indexed:
    """Return the samples of a folder "shard" that came with its manifest.

    Raises:
        InputError: if it is none.
        CorruptWorkspace: if its manifest cannot be read.
    """
    corpus = open_corpus(folder)
    assert corpus.manifest is not None
    return _of_manifest(corpus.manifest, corpus.folder, cache)


def of_tars(tars: Sequence[str], cache: ShardCache | None) -> Indexed:
    """Return the samples of tars that lie beside their indexes.

    Raises:
        InputError: if an index is not one of witmill's.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        shards, states = zip(*pool.map(_look_at, tars), strict=True)
    return _indexed(shards, digest_of(states), cache)


def is_own(tar: str) -> bool:
    """Return whether an index of witmill's lies beside a tar."""
    index = _index_of(tar)
    if not storage.exists(index):
        return False
    with storage.open_input(index) as file:
        try:
            return set(_NEEDED) <= set(pq.read_schema(file).names)
        except (pa.ArrowException, OSError, UnicodeDecodeError):
            return False


def _index_of(tar: str) -> str:
    return f"{tar.removesuffix('.tar')}.parquet"


def _look_at(tar: str) -> tuple[OwnShard, str]:
    """Return a shard, and a digest that tells its index from any other's."""
    index = _index_of(tar)
    if not is_own(tar):
        raise InputError(
            f"{tar} has no index of witmill's beside it, other tars there have; "
            "expected tars of one kind under one name: give those of others a source of their own"
        )
    with storage.open_input(index) as file:
        about = pq.read_metadata(file)
        # It has the bounds and sizes of every column: no two indexes share it.
        footer = file.read_at(about.serialized_size, file.size() - about.serialized_size - 8)
    shard = OwnShard(tar=tar, index=index, rows=about.num_rows)
    return shard, hashlib.sha256(footer).hexdigest()


def _of_manifest(manifest: Manifest, folder: str, cache: ShardCache | None) -> Indexed:
    shards = []
    for part in manifest.parts:
        index = storage.join(folder, part.path.removeprefix(f"{STAGE}/"))
        tar = f"{index.removesuffix('.parquet')}.tar"
        shards.append(OwnShard(tar=tar, index=index, rows=part.rows, sha256=part.sha256))
    return _indexed(shards, manifest.content, cache)


def _indexed(shards: Sequence[OwnShard], identity: str, cache: ShardCache | None) -> Indexed:
    # A large shard is read run by run; its index is hashed the first time only.
    checked: set[int] = set()

    def read(number: int, first: int, last: int, columns: Sequence[str]) -> pa.Table:
        shard = shards[number]
        if number not in checked:
            _check(shard, cache)
            checked.add(number)
        table = _read_index(shard, columns, cache).slice(first, last - first)
        return with_column(table, "shard", shard.tar) if "shard" in columns else table

    return Indexed(
        rows=np.array([shard.rows for shard in shards], np.int64),
        identity=identity,
        columns=SHARD_INDEX,
        read=read,
    )


def _check(shard: OwnShard, cache: ShardCache | None) -> None:
    if shard.sha256 is None:
        return
    with _opened(shard.index, cache) as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    if digest != shard.sha256:
        raise CorruptWorkspace(
            f"{shard.index} is corrupted: its sha256 differs; `witmill verify` says what else does"
        )


def _opened(index: str, cache: ShardCache | None) -> pa.NativeFile:
    if cache is None or not storage.is_url(index):
        return storage.open_input(index)
    return pa.BufferReader(cache.read(index, 0, cache.size(index)))


def _read_index(shard: OwnShard, columns: Sequence[str], cache: ShardCache | None) -> pa.Table:
    with parquet_errors(shard.index), _opened(shard.index, cache) as file:
        table = pq.read_table(file, columns=list(columns)).select(list(columns))
    wanted = pa.schema([SHARD_INDEX.field(name) for name in columns])
    return schemas.check(table, wanted, source=shard.index)
