"""Open what a stream draws from: workspaces, shards, tars of others, folders of labelled pictures."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from types import TracebackType
from typing import Self

import pyarrow as pa

from pipeline.errors import ConfigError, InputError
from pipeline.runtime import storage
from pipeline.runtime.workspace import MANIFEST, PROPERTIES, Workspace
from train.config import TrainConfig
from train.samples import foreign_tars, labelled_folders, own_shards
from train.samples.conditions import chosen
from train.samples.indexed import Indexed, with_column
from train.samples.order import Layout, epoch_length
from train.samples.sample_reader import SampleReader
from train.samples.shard_cache import ShardCache
from train.samples.source_settings import SourceSettings, read_sources
from train.stream import Sample, ShardStream, Source

CACHE_GIB = 50.0
STAGE = "shard"


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Sources, and how the images of their samples are read; closes what it opened.

    Attributes:
        reads: stages of the workspace that the samples come from.
        files: what else a stage that reads the samples depends on, by name.
        left_out: of each source, samples that cannot be used, by reason.
        examples: of each source, what was seen of the first of them.
    """

    sources: tuple[Source, ...]
    reader: SampleReader
    reads: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    left_out: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    examples: Mapping[str, str] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """Samples of the first epoch; a fractional weight makes others differ by one."""
        return epoch_length([source.layout for source in self.sources], 0)

    def stream(
        self, *, batch_size: int, seed: int, window: int, rank: int = 0, world_size: int = 1
    ) -> ShardStream:
        """Return a stream over the samples, at its beginning."""
        return ShardStream(
            self,
            batch_size=batch_size,
            seed=seed,
            window=window,
            rank=rank,
            world_size=world_size,
        )

    def read(self, sample: Sample) -> bytes:
        """Return the bytes of a sample's image; see `SampleReader.read`."""
        return self.reader.read(sample)

    def read_ahead(self, window: Sequence[pa.Table]) -> None:
        """Fetch in the background what a window needs; see `SampleReader.read_ahead`."""
        self.reader.read_ahead(window)

    def describe(self) -> list[str]:
        """Return a line for each source that had to leave samples out."""
        return [
            f"{name}: {sum(counts.values()):,} samples are left out: "
            + ", ".join(f"{reason} {count:,}" for reason, count in counts.items())
            + f"; the first: {self.examples[name]}"
            for name, counts in self.left_out.items()
            if counts
        ]

    def close(self) -> None:
        """Stop reading ahead and close files."""
        self.reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_training_data(config: TrainConfig, workspace: Workspace) -> TrainingData:
    """Open what the stage "train" trains on: the workspace's shards, or the sources of a file.

    Raises:
        ConfigError, InputError, MissingInput, StorageError: in one line, if there is something wrong with them.
    """
    if config.sources:
        if config.where:
            raise ConfigError(
                f"train.where is given together with train.sources; put it into {config.sources}"
            )
        return open_sources(config.sources, cache=config.cache, cache_gib=config.cache_gib)
    return open_workspace(
        workspace, where=config.where, cache=config.cache, cache_gib=config.cache_gib
    )


def open_workspace(
    workspace: Workspace,
    *,
    where: str = "",
    pictures: bool = True,
    cache: str = "",
    cache_gib: float = CACHE_GIB,
) -> TrainingData:
    """Open the samples that the stage "shard" packed; arguments as in `SourceSettings` and `TrainConfig`."""
    settings = SourceSettings(name=STAGE, path=workspace.root, where=where, pictures=pictures)
    return _open([settings], _Places(cache, cache_gib), reads=[STAGE])


def open_path(
    path: str,
    *,
    where: str = "",
    pictures: bool = True,
    cache: str = "",
    cache_gib: float = CACHE_GIB,
) -> TrainingData:
    """Open a workspace, tars, or a folder of labelled pictures; arguments as in `SourceSettings`.

    Raises:
        InputError: if it is nothing of the kind, or holds nothing to use.
    """
    settings = SourceSettings(name="data", path=path, where=where, pictures=pictures)
    return _open([settings], _Places(cache, cache_gib))


def open_sources(path: str, *, cache: str = "", cache_gib: float = CACHE_GIB) -> TrainingData:
    """Open the sources that a TOML file names; see `SourceSettings`.

    Raises:
        ConfigError, InputError: naming the source and what is wrong with it.
    """
    return _open(read_sources(path), _Places(cache, cache_gib), file=path)


def default_cache() -> str:
    """Return the folder for indexes and copies of remote shards where none is named."""
    base = os.environ.get("XDG_CACHE_HOME") or storage.local_path("~/.cache")
    return storage.join(base, "witmill")


class _Places:
    """Where indexes and blocks are kept."""

    def __init__(self, cache: str, cache_gib: float) -> None:
        if storage.is_url(cache):
            raise ConfigError(f"the cache is at {cache}, expected a local folder")
        self.folder = storage.local_path(cache) if cache else default_cache()
        self._limit = int(cache_gib * 2**30)
        self._blocks: ShardCache | None = None

    def blocks(self) -> ShardCache | None:
        if self._blocks is None and self._limit:
            self._blocks = ShardCache(storage.join(self.folder, "blocks"), limit=self._limit)
        return self._blocks


def _open(
    settings: Sequence[SourceSettings],
    places: _Places,
    *,
    reads: Sequence[str] = (),
    file: str | None = None,
) -> TrainingData:
    opened = {source.name: _indexed(source, places) for source in settings}
    is_remote = any(storage.is_url(source.path) for source in settings)
    files = {"sources": file} if file else {}
    for name, indexed in opened.items() if file else ():
        files[f"source {name}"] = _noted(indexed.identity, places.folder)
    return TrainingData(
        sources=tuple(_source(source, opened[source.name]) for source in settings),
        reader=SampleReader(places.blocks() if is_remote else None),
        reads=list(reads),
        files=files,
        left_out={name: indexed.left_out for name, indexed in opened.items()},
        examples={name: indexed.example for name, indexed in opened.items()},
    )


def _indexed(source: SourceSettings, places: _Places) -> Indexed:
    found = _look(source, places)
    if not source.where:
        return found
    try:
        return chosen(found, source.where, places.folder)
    except (ConfigError, InputError) as error:
        raise type(error)(f"source {source.name}: {error}") from error


def _look(source: SourceSettings, places: _Places) -> Indexed:
    if storage.is_http(source.path):
        raise InputError(
            f"{source.where_it_is} is on the web; expected a local path, s3:// or gs://"
        )
    path = source.path if storage.is_url(source.path) else storage.local_path(source.path)
    cache = places.blocks() if storage.is_url(path) else None
    if storage.exists(storage.join(path, PROPERTIES)):
        source.check_no_classes()
        return own_shards.of_workspace(Workspace(root=path), cache)
    if storage.exists(storage.join(path, MANIFEST)):
        source.check_no_classes()
        return own_shards.of_folder(path, cache)
    if not foreign_tars.means_tars(path):
        return labelled_folders.of_folder(source.classes().model_copy(update={"path": path}))
    source.check_no_classes()
    tars = foreign_tars.find_tars(path)
    if own_shards.is_own(tars[0].path):
        return own_shards.of_tars([tar.path for tar in tars], cache)
    return foreign_tars.of_tars(
        tars, indexes=source.index, cache=places.folder, with_pictures=source.pictures
    )


def _source(settings: SourceSettings, indexed: Indexed) -> Source:
    read: Callable[[int, int, int], pa.Table] = indexed.located
    return Source(
        name=settings.name,
        layout=Layout(rows=indexed.rows, weight=Fraction(str(settings.weight))),
        identity=indexed.identity,
        read=read if settings.pictures else partial(_without_pictures, read),
        prompts=indexed.prompts,
    )


def _without_pictures(
    read: Callable[[int, int, int], pa.Table], shard: int, first: int, last: int
) -> pa.Table:
    return with_column(read(shard, first, last), "image_length", 0)


def _noted(identity: str, cache: str) -> str:
    """Write down what tells a source from others, for the fingerprint of a stage; return where."""
    path = storage.join(cache, "sources", identity)
    if not storage.exists(path):
        storage.write_bytes(path, identity.encode())
    return path
