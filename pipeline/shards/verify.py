"""Check finished shards: every tar against its index, its sha256 and what is recorded of the whole."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schemas
from pipeline.errors import CorruptWorkspace, InputError, StorageError
from pipeline.pictures.tar import BrokenTar, Member, read_members
from pipeline.runtime import storage
from pipeline.runtime.executor import Executor
from pipeline.runtime.progress import Progress
from pipeline.runtime.workspace import Workspace
from pipeline.shards.corpus import RECORDED, Corpus, Shard, read_stats, reading
from pipeline.shards.hashed import HashedInput
from pipeline.shards.members import MemberCheck

FAULTS_SHOWN = 20
"""Of each shard; where everything is wrong, more lines say no more."""


@dataclass(frozen=True, kw_only=True)
class VerifyTask:
    """One shard to check; `decode` its pictures, too."""

    shard: Shard
    decode: bool


@dataclass(kw_only=True)
class Report:
    """What was found in a shard, or in all of them; `untold` faults have no line in `faults`."""

    samples: int = 0
    bytes: int = 0
    faults: list[str] = field(default_factory=list)
    untold: int = 0

    @property
    def count(self) -> int:
        """Faults in all."""
        return len(self.faults) + self.untold

    def add(self, fault: str) -> None:
        """Note a fault."""
        if len(self.faults) < FAULTS_SHOWN:
            self.faults.append(fault)
        else:
            self.untold += 1


def verify(place: str, executor: Executor, *, decode: bool = False) -> Iterator[Report]:
    """Yield what is found in each shard of the workspace or folder at `place`, and last in the whole.

    Raises:
        InputError, MissingInput: see `open_corpus`.
    """
    with reading(place) as corpus:
        tasks = [VerifyTask(shard=shard, decode=decode) for shard in corpus.shards]
        samples = 0
        with Progress("verify", len(tasks), unit="shards") as progress:
            for report in executor.map(check_shard, tasks):
                samples += report.samples
                progress.advance(rows=report.samples, drops=0)
                yield report
        yield _check_whole(corpus, samples)


def _check_whole(corpus: Corpus, samples: int) -> Report:
    report = Report()
    if corpus.manifest is None:
        for number, shard in enumerate(corpus.shards):
            if shard.name != f"{number:05d}.tar":
                report.add(f"{number:05d}.tar is missing: {shard.name} follows in its place")
                break
        return report
    known = {shard.tar for shard in corpus.shards}
    for path in storage.list_inside(corpus.folder):
        if path.endswith(".tar") and path not in known:
            report.add(f"{path} is not in the manifest")
    if samples != corpus.manifest.rows_out:
        report.add(
            f"the shards hold {samples:,} samples, the manifest says {corpus.manifest.rows_out:,}"
        )
    if corpus.workspace is not None:
        _check_side_tables(corpus, corpus.workspace, report)
    return report


def _check_side_tables(corpus: Corpus, workspace: Workspace, report: Report) -> None:
    assert corpus.manifest is not None
    for table, parts in corpus.manifest.tables.items():
        for part in parts if table not in RECORDED else ():
            try:
                workspace.verify(part)
            except (CorruptWorkspace, StorageError) as error:
                report.add(str(error))


def check_shard(task: VerifyTask) -> Report:
    """Check one shard; runs in a worker."""
    report = Report()
    shard = task.shard
    try:
        index = read_index(shard, report)
        report.samples = len(index)
        for _ in read_tar(shard, index, report.add, decode=task.decode):
            pass
        report.bytes = storage.size(shard.tar) or 0
        _check_stats(shard, report)
    except (InputError, StorageError) as error:
        report.add(str(error))
    return report


def read_index(shard: Shard, report: Report | None = None) -> pa.Table:
    """Return the index of a shard, whole; a wrong sha256 is noted in `report`.

    Raises:
        InputError: if it is no such index, or, without `report`, not what was written.
        StorageError: if it cannot be read.
    """
    data = storage.read_bytes(shard.index)
    recorded = shard.files.get(shard.index)
    if recorded is not None and recorded.sha256 != hashlib.sha256(data).hexdigest():
        wrong = f"{shard.index} is not what was written: its sha256 differs"
        if report is None:
            raise InputError(f"{wrong}; run `witmill verify` to see what else does")
        report.add(wrong)
    try:
        index = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{shard.index} cannot be read as Parquet: {error}") from error
    needed = [f for f in schemas.SHARD_INDEX if f.name not in schemas.SAMPLE.names]
    needed += [schemas.SAMPLE.field(name) for name in ("pair_id", "caption", "width", "height")]
    wrong_columns = [
        f.name
        for f in needed
        if f.name not in index.column_names
        or index.schema.field(f.name).type != f.type
        or (index.column(f.name).null_count and not f.nullable)
    ]
    if wrong_columns:
        raise InputError(
            f"{shard.index} is no index of a shard: {', '.join(wrong_columns)} missing or of another kind"
        )
    return index


def read_tar(
    shard: Shard, index: pa.Table, say: Callable[[str], None], *, decode: bool = False
) -> Iterator[Member]:
    """Yield the members of a tar in their order, once each is compared with the index.

    Args:
        index: whole, as `read_index` returns it.
        say: takes one line per fault; of the tar as a whole after the last member.
        decode: decode every picture, too.
    """
    check = MemberCheck(index, shard.name, decode=decode, say=say)
    with HashedInput(shard.tar) as file:
        try:
            for member in read_members(file):
                check.take(member)
                yield member
        except BrokenTar as error:
            say(f"{shard.name}: {error}")
        check.end()
        sha256, size = file.sha256, file.size
    expected = shard.files.get(shard.tar) or read_stats(shard)
    if expected is None:
        say(f"{shard.tar}: nothing says what its sha256 should be; {shard.stats} is missing")
    elif expected.bytes != size:
        say(f"{shard.tar} has {size:,} bytes, expected {expected.bytes:,}")
    elif expected.sha256 != sha256:
        say(f"{shard.tar} is not what was written: its sha256 differs")


def read_sound_tar(shard: Shard, index: pa.Table) -> Iterator[Member]:
    """Yield the members of a tar as `read_tar` does, and end at the first fault.

    Raises:
        CorruptWorkspace: naming it.
    """

    def refuse(fault: str) -> None:
        raise CorruptWorkspace(f"{fault}; run `witmill verify` to see what else is wrong")

    return read_tar(shard, index, refuse)


def _check_stats(shard: Shard, report: Report) -> None:
    data = storage.read_bytes(shard.stats)
    recorded = shard.files.get(shard.stats)
    if recorded is not None and recorded.sha256 != hashlib.sha256(data).hexdigest():
        report.add(f"{shard.stats} is not what was written: its sha256 differs")
        return
    stats = read_stats(shard)
    if stats is not None and stats.rows != report.samples:
        report.add(f"{shard.stats} counts {stats.rows} samples, the index has {report.samples:,}")
