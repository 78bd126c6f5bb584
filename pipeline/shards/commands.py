"""The commands on finished shards: `witmill verify`, `witmill reshard` and `witmill remove`."""

from contextlib import closing
from typing import Annotated, Literal

from cyclopts import Parameter

from pipeline.errors import ConfigError
from pipeline.runtime.executor import make_executor
from pipeline.runtime.workspace import Workspace
from pipeline.shards import removals
from pipeline.shards.corpus import writing
from pipeline.shards.remove import Removal, finish_removal
from pipeline.shards.remove import remove as remove_pairs
from pipeline.shards.reshard import ReshardConfig, check_output
from pipeline.shards.reshard import reshard as write_corpus
from pipeline.shards.verify import verify as check_corpus

ExecutorOption = Annotated[
    Literal["local", "ray"],
    Parameter(help="processes on this machine (the default), or a Ray cluster"),
]
WorkersOption = Annotated[
    int | None, Parameter(help="processes; default: one per core; 0: in this process")
]

_RESHARD_DEFAULTS = ReshardConfig()


def verify(
    corpus: str,
    *,
    decode: bool = False,
    executor: ExecutorOption = "local",
    workers: WorkersOption = None,
) -> int:
    """Check finished shards: every tar against its index and its sha256, member by member.

    Works on a workspace, and on a folder of shards that came without one. One line per fault, and exit
    status 1 if there is any.

    Example: `witmill verify runs/first`

    Example: `witmill verify s3://bucket/corpus/shard --decode`

    Args:
        corpus: workspace, or folder with NNNNN.tar, NNNNN.parquet and NNNNN_stats.json; or its URL.
        decode: decode every picture, too.
    """
    shards = samples = size = faults = 0
    with closing(make_executor(executor, workers=workers)) as chosen:
        for report in check_corpus(corpus, chosen, decode=decode):
            for fault in report.faults:
                print(fault)
            if report.untold:
                print(f"{report.untold:,} more faults there")
            shards += report.bytes > 0
            samples += report.samples
            size += report.bytes
            faults += report.count
    verdict = f"{faults:,} faults" if faults else "no faults"
    print(f"{shards:,} shards, {samples:,} samples, {size:,} bytes: {verdict}")
    return 1 if faults else 0


def reshard(
    corpus: str,
    *,
    output: Annotated[str, Parameter(name=["--output", "-o"])],
    settings: Annotated[ReshardConfig, Parameter(name="*")] = _RESHARD_DEFAULTS,
    executor: ExecutorOption = "local",
    workers: WorkersOption = None,
) -> int:
    """Write some samples of finished shards, or all, as a corpus of their own, without the network.

    The output is a workspace with nothing but shards: `train`, `verify`, `remove` and `sql` work there.
    Pictures, captions and metadata stay as they are, byte for byte; keys are given anew.

    Example: `witmill reshard runs/first --where "original_width >= 400 AND language = 'en'" --output runs/large`

    Example: `witmill reshard runs/first --uids subset.npy --shard-bytes 1GB --output s3://bucket/subset`

    Args:
        corpus: workspace, or folder of shards; or its URL.
        output: new workspace for what is chosen.
    """
    target = Workspace(root=output)
    check_output(corpus, target)
    with target.locked(), closing(make_executor(executor, workers=workers)) as chosen:
        manifest = write_corpus(settings, corpus, target, chosen)
    tars = manifest.tables.get("tars", [])
    print(f"{manifest.rows_out:,} samples in {len(tars):,} shards in {target.root}")
    return 0


def remove(
    workspace: str,
    *,
    urls: tuple[str, ...] = (),
    hashes: tuple[str, ...] = (),
    pair_ids: tuple[str, ...] = (),
    executor: ExecutorOption = "local",
    workers: WorkersOption = None,
) -> int:
    """Take pairs out of finished shards for good, and keep a record.

    Only the shards concerned are written anew, under the same names; all other samples keep their keys.
    The lists stay in the workspace: shards packed later leave the same pairs out. Without a list, a
    removal that was cut off is finished.

    Example: `witmill remove runs/first --urls takedown.txt`

    Args:
        workspace: folder or URL that holds the run.
        urls: files of image addresses: text, one a line, or Parquet with a column url.
        hashes: files of sha256 of the pictures as fetched, or of PDQ hashes, in hex.
        pair_ids: files of pair ids.
    """
    space = Workspace(root=workspace)
    space.require()
    given = {"url": urls, "hash": hashes, "pair_id": pair_ids}
    # Before anything is touched.
    lists = [removals.read_list(path, kind) for kind, paths in given.items() for path in paths]
    with (
        space.locked(),
        writing(space),
        closing(make_executor(executor, workers=workers)) as chosen,
    ):
        was_cut_off = finish_removal(space)
        if was_cut_off:
            print("an earlier removal was cut off; it is finished now")
        if lists:
            _print_removal(remove_pairs(space, lists, chosen))
        elif not was_cut_off:
            raise ConfigError("no list is given; expected --urls, --hashes or --pair-ids")
    return 0


def _print_removal(done: Removal) -> None:
    if not done.has_shards:
        print("nothing is packed yet; `witmill shard` will leave out what the lists name")
        return
    print(f"{done.pairs:,} pairs removed, {done.shards:,} shards written anew; the lists are kept")
