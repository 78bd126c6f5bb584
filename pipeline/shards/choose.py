"""Which samples of a corpus meet an SQL condition or stand on a list of ids; asked of the indexes alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipeline.errors import ConfigError, InputError
from pipeline.runtime import storage
from pipeline.shards.condition import check_condition, one_line, sandboxed
from pipeline.shards.corpus import Corpus
from pipeline.shards.listed import read_chunks

_ID = pa.schema([("id", pa.string())])


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Shard and key of the samples meant, in the Parquet file at `path`; `digest` tells them from others."""

    path: str
    rows: int
    digest: str


def choose(corpus: Corpus, where: str | None, uids: str | None, folder: str) -> Chosen:
    """Write down in the local `folder` which samples are meant.

    Args:
        where: a condition in DuckDB's SQL over the columns of SHARD_INDEX, which is also the view
            `samples`.
        uids: a file that lists ids; a sample is meant if its uid or pair_id is among them.

    Raises:
        ConfigError: if the condition is wrong, or would choose others another time.
        InputError: if the file of ids cannot be read, or no sample is meant.
    """
    chosen = f"{folder}/chosen.parquet"
    with _opened(corpus, folder) as connection:
        conditions = []
        if where is not None:
            check_condition(connection, where)
            conditions.append(f"(\n{where}\n)")
        if uids is not None:
            ids = f"{folder}/ids.parquet"
            _write_ids(uids, ids)
            connection.read_parquet(ids).create_view("ids")
            conditions.append("(uid IN (SELECT id FROM ids) OR pair_id IN (SELECT id FROM ids))")
        query = (
            "SELECT parse_filename(shard) AS shard, key FROM samples "
            f"WHERE {' AND '.join(conditions)} ORDER BY ALL"
        )
        try:
            connection.sql(query).write_parquet(chosen)
        except duckdb.Error as error:
            raise ConfigError(f"the condition failed: {one_line(error)}") from error
        summary = "SELECT count(*), bit_xor(md5_number(shard || ' ' || key)) FROM read_parquet(?)"
        ((rows, digest),) = connection.execute(summary, [chosen]).fetchall()
    if not rows:
        raise InputError("no sample is meant; nothing was written")
    return Chosen(path=chosen, rows=rows, digest=f"{digest:032x}")


@contextmanager
def _opened(corpus: Corpus, folder: str) -> Iterator[duckdb.DuckDBPyConnection]:
    system, _ = storage.filesystem(corpus.folder)
    files = [storage.filesystem(shard.index)[1] for shard in corpus.shards]
    with sandboxed(folder) as connection:
        with storage.storage_errors("read the indexes of", corpus.folder):
            connection.register("samples", ds.dataset(files, filesystem=system, format="parquet"))
        yield connection


def _write_ids(path: str, target: str) -> None:
    with pq.ParquetWriter(target, _ID, compression="zstd") as writer:
        for ids in read_chunks(path, ("uid", "pair_id")):
            # Hex digits are hex digits, in whatever case.
            both = [*ids, *map(str.lower, ids)]
            writer.write_table(pa.table([pa.array(both, pa.string())], schema=_ID))
