"""Every stage in the order data flows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from dedup import deduplicate
from pipeline import balance, captions, download, ingest, language, match, shard
from pipeline.errors import ConfigError
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import Manifest
from pipeline.runtime.settings import Settings
from pipeline.runtime.workspace import Workspace
from train.config import TrainConfig
from train.evaluation.config import EvaluateConfig


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A command of the command line: what it reads and how it runs.

    Attributes:
        reads: earlier stages whose tables it needs.
        reasons: every reason code it can drop a row for, with its meaning.
        example: options to show in `--help` after `--workspace W`.
        arguments: the setting that is given without an option name, if any.
        extra: the extra of the distribution that has the libraries it needs, if any.
        instead: the setting that names what to read in place of earlier stages' tables, if any.
        joins: whether processes that torchrun starts run it together, of which only the first one writes.
        preview: prints what the stage would do with given settings, how fast, and does nothing.
        explain: says of one caption, under given settings, what the stage would do with it, and why.
    """

    name: str
    reads: tuple[str, ...]
    config: type[Settings]
    run: Callable[[Any, Workspace, Executor], Manifest]
    reasons: Mapping[str, str]
    example: str = ""
    arguments: str | None = None
    extra: Literal["download", "train"] | None = None
    instead: str | None = None
    joins: bool = False
    explain: Callable[[Any, str], str] | None = None
    preview: Callable[[Any, Workspace], None] | None = None

    def needs_workspace(self, settings: Settings) -> bool:
        """Return whether it reads what earlier stages left in the workspace."""
        return bool(self.reads) and not (self.instead and getattr(settings, self.instead))

    def require_extra(self) -> None:
        """Make sure that the stage's libraries are installed.

        Raises:
            ConfigError: naming what is missing and how to install it.
        """
        missing = [name for name in _LIBRARIES.get(self.extra or "", ()) if find_spec(name) is None]
        if missing:
            raise ConfigError(
                f"{self.name} needs {', '.join(missing)}; install witmill with its extra: "
                f"pip install -c constraints.txt -e '.[{self.extra}]'"
            )


_LIBRARIES = {
    "download": ("certifi", "idna", "img2dataset", "PIL", "pycurl", "simplejpeg", "urllib3"),
    "train": (
        "ftfy",
        "instant_clip_tokenizer",
        "jinja2",
        "PIL",
        "scipy",
        "simplejpeg",
        "sklearn",
        "torch",
    ),
}


def _train(config: TrainConfig, workspace: Workspace, executor: Executor) -> Manifest:
    # torch takes seconds to import, and curating text must work without it.
    from train import loop

    return loop.run(config, workspace, executor)


def _preview_training(config: TrainConfig, workspace: Workspace) -> None:
    from train import dry_run

    dry_run.dry_run(config, workspace)


def _evaluate(config: EvaluateConfig, workspace: Workspace, executor: Executor) -> Manifest:
    from train.evaluation import stage

    return stage.run(config, workspace, executor)


STAGES = (
    Stage(
        name="ingest",
        reads=(),
        config=ingest.IngestConfig,
        run=ingest.run,
        reasons=ingest.REASONS,
        example="crawl/*.warc.gz",
        arguments="inputs",
    ),
    Stage(
        name="match",
        reads=("ingest",),
        config=match.MatchConfig,
        run=match.run,
        reasons=match.REASONS,
        example="--queries mine.parquet",
        explain=match.explain,
    ),
    Stage(
        name="language",
        reads=("match",),
        config=language.LanguageConfig,
        run=language.run,
        reasons=language.REASONS,
        example="--languages en",
        explain=language.explain,
    ),
    Stage(
        name="captions",
        reads=("language",),
        config=captions.CaptionsConfig,
        run=captions.run,
        reasons=captions.REASONS,
        example="--preset datacomp",
        explain=captions.explain,
    ),
    Stage(
        name="balance",
        reads=("captions", "match"),
        config=balance.BalanceConfig,
        run=balance.run,
        reasons=balance.REASONS,
        example="--cap 20000 --headroom 1.5",
    ),
    Stage(
        name="download",
        extra="download",
        reads=("balance", "ingest"),
        config=download.DownloadConfig,
        run=download.run,
        reasons=download.REASONS,
        example="--image-size 256",
    ),
    Stage(
        name="dedup",
        extra="download",
        reads=("download",),
        config=deduplicate.DedupConfig,
        run=deduplicate.run,
        reasons=deduplicate.REASONS,
        example="--evalsets evalsets.toml",
    ),
    Stage(
        name="rebalance",
        reads=("dedup", "balance", "match"),
        config=balance.RebalanceConfig,
        run=balance.rerun,
        reasons={"over_cap": balance.REASONS["over_cap"]},
    ),
    Stage(
        name="shard",
        reads=("rebalance", "download", "match", "ingest"),
        config=shard.ShardConfig,
        run=shard.run,
        reasons=shard.REASONS,
        example="--samples-per-shard 10000",
    ),
    Stage(
        name="train",
        extra="train",
        reads=("shard",),
        config=TrainConfig,
        instead="sources",
        joins=True,
        run=_train,
        preview=_preview_training,
        reasons={},
        example="--model ViT-B/32",
    ),
    Stage(
        name="evaluate",
        extra="train",
        reads=("train",),
        config=EvaluateConfig,
        instead="model",
        run=_evaluate,
        reasons=EvaluateConfig.reasons,
        example="--evalsets evalsets.toml",
    ),
)

BY_NAME = {stage.name: stage for stage in STAGES}
