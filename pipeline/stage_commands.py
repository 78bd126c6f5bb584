"""The commands of the stages: one each, whose options are the stage's settings."""

import os
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from pipeline import plan as plans
from pipeline.errors import ConfigError
from pipeline.runtime.executor import make_executor
from pipeline.runtime.settings import Settings, read_settings
from pipeline.runtime.workspace import Workspace
from pipeline.stages import BY_NAME, Stage
from pipeline.status import print_evaluations
from train.evaluation.config import EvaluateConfig

ExecutorOption = Annotated[
    Literal["local", "ray"], Parameter(help="processes on this machine, or a Ray cluster")
]
WorkersOption = Annotated[
    int | None, Parameter(help="processes; default: one per core; 0: in this process")
]
ExplainOption = Annotated[
    str | None,
    Parameter(
        help="a caption to explain under these settings, in place of running; no workspace needed"
    ),
]


DryRunOption = Annotated[
    bool,
    Parameter(negative=(), help="say what the run would be and what would hold it up; do nothing"),
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class StageOptions:
    """What every stage's command takes beside the stage's own settings."""

    workspace: Annotated[
        str | None,
        Parameter(
            name=["--workspace", "-w"],
            help="folder or URL that holds the run; default: the one that --config names",
        ),
    ] = None
    config: Annotated[
        str | None,
        Parameter(help="TOML file of a run, see `witmill run`; options given here win"),
    ] = None
    executor: Annotated[
        Literal["local", "ray"] | None,
        Parameter(help="processes on this machine (the default), or a Ray cluster"),
    ] = None
    workers: WorkersOption = None
    drops: Annotated[
        Literal["all", "sample"] | None,
        Parameter(help="keep every dropped row (the default), or 100 a reason and part"),
    ] = None


_NO_OPTIONS = StageOptions()
_UNSET = EvaluateConfig()


def stage_command(stage: Stage) -> Callable[..., int]:
    """Return the function that Cyclopts makes the stage's command of."""
    if stage.name == "evaluate":
        return evaluate
    make = _without_settings
    if stage.preview:
        make = _with_preview
    elif stage.explain:
        make = _with_explain
    elif stage.arguments:
        make = _with_arguments
    elif stage.config.model_fields:
        make = _with_settings
    command = make(stage, stage.config())
    if stage.config.model_fields:
        command.__annotations__["settings"] = Annotated[stage.config, Parameter(name="*")]
    command.__doc__ = _stage_help(stage)
    return command


def _without_settings(stage: Stage, defaults: Settings) -> Callable[..., int]:
    def command(*, options: StageOptions = _NO_OPTIONS) -> int:
        return _run_stage(stage, defaults, options)

    return command


def _with_settings(stage: Stage, defaults: Settings) -> Callable[..., int]:
    def command(*, settings: Any = defaults, options: StageOptions = _NO_OPTIONS) -> int:
        return _run_stage(stage, settings, options)

    return command


def _with_arguments(stage: Stage, defaults: Settings) -> Callable[..., int]:
    def command(
        *arguments: str, settings: Any = defaults, options: StageOptions = _NO_OPTIONS
    ) -> int:
        if arguments:
            settings = settings.model_copy(update={stage.arguments: arguments})
        return _run_stage(stage, settings, options)

    return command


def _with_explain(stage: Stage, defaults: Settings) -> Callable[..., int]:
    def command(
        *,
        settings: Any = defaults,
        options: StageOptions = _NO_OPTIONS,
        explain: ExplainOption = None,
    ) -> int:
        if explain is None or stage.explain is None:
            return _run_stage(stage, settings, options)
        print(stage.explain(_settings(stage, settings, options)[0], explain))
        return 0

    return command


def _with_preview(stage: Stage, defaults: Settings) -> Callable[..., int]:
    def command(
        *,
        settings: Any = defaults,
        options: StageOptions = _NO_OPTIONS,
        dry_run: DryRunOption = False,
    ) -> int:
        if not dry_run or stage.preview is None:
            return _run_stage(stage, settings, options)
        settings, space, _ = _prepare(stage, settings, options)
        stage.preview(settings, space)
        return 0

    return command


def evaluate(
    model: str = "",
    /,
    *,
    output: Annotated[str | None, Parameter(name=["--output", "-o"])] = None,
    settings: Annotated[EvaluateConfig, Parameter(name="*")] = _UNSET,
    options: StageOptions = _NO_OPTIONS,
) -> int:
    """Measure a model on pictures it has not been trained for.

    MODEL may be of ours, of open_clip's or of OpenAI's; without it the model of the workspace is measured.
    Tables, results.json and results.md are written to `evaluate/` in the workspace, or in --output, which
    is a workspace of its own. Run again with more heads or sets, it computes no features twice.

    Reads train, without MODEL. Reasons to drop a picture: broken_image.

    Example: `witmill evaluate ViT-B-32.pt --sets evalsets.toml --output results/vit-b-32`

    Example: `witmill evaluate --workspace runs/first --sets evalsets.toml --heads zero_shot,linear_probe`

    Args:
        model: a model.pt of ours; a state dict, TorchScript archive or safetensors of open_clip's or OpenAI's.
        output: folder or URL for the results, another word for --workspace.
    """
    stage = BY_NAME["evaluate"]
    if (output, options.workspace, options.config) == (None, None, None):
        raise ConfigError(
            "evaluate has nowhere to write; give --output, a folder for the results, or --workspace"
        )
    if model:
        settings = settings.model_copy(update={"model": model})
    if output is not None:
        options = replace(options, workspace=output)
    return _run_stage(stage, settings, options)


def _stage_help(stage: Stage) -> str:
    reads = f"Reads {', '.join(stage.reads)}. " if stage.reads else ""
    drops = f"Reasons to drop a pair: {', '.join(stage.reasons)}." if stage.reasons else ""
    examples = [f"witmill {stage.name} --workspace runs/first {stage.example}".rstrip()]
    if stage.preview:
        examples.append(f"witmill {stage.name} --workspace runs/first --dry-run")
    if stage.explain:
        examples.append(f'witmill {stage.name} --explain "Golden Retriever on a beach"')
    shown = [f"Example: `{example}`" for example in examples]
    about = [stage.config.__doc__ or "", reads + drops, *shown]
    return "\n\n".join(filter(None, about))


def _run_stage(stage: Stage, given: Settings, options: StageOptions) -> int:
    settings, space, general = _prepare(stage, given, options)
    with (
        # Of processes that work together the first one alone writes, so it alone keeps others out.
        nullcontext() if stage.joins and follows() else space.locked(),
        closing(make_executor(general.executor, workers=general.workers)) as executor,
    ):
        stage.run(settings, space, executor)
    if stage.name == "evaluate":
        print_evaluations(space)
    return 0


def _prepare(
    stage: Stage, given: Settings, options: StageOptions
) -> tuple[Settings, Workspace, plans.RunConfig]:
    """Return the settings, and the workspace, which is there if the stage reads it."""
    stage.require_extra()
    settings, general = _settings(stage, given, options)
    if not general.workspace:
        raise ConfigError(f"{stage.name} has no workspace; give --workspace, or --config with one")
    space = Workspace(root=general.workspace, drops=general.drops)
    if stage.needs_workspace(settings):
        space.require()
    return settings, space, general


def _settings(
    stage: Stage, given: Settings, options: StageOptions
) -> tuple[Settings, plans.RunConfig]:
    """Return the stage's settings and the run's: options as given, else the file's, else the defaults."""
    settings, general = given, plans.RunConfig()
    if options.config is not None:
        plan = plans.read_plan(options.config)
        from_file = plan.stages[stage.name].model_dump(exclude_unset=True)
        from_options = given.model_dump(exclude_unset=True)
        settings = read_settings(stage.config, {**from_file, **from_options}, where=stage.name)
        general = plan.general
    overrides = {
        "workspace": options.workspace,
        "executor": options.executor,
        "workers": options.workers,
        "drops": options.drops,
    }
    named = {name: value for name, value in overrides.items() if value is not None}
    return settings, general.model_copy(update=named)


def follows() -> bool:
    """Return whether torchrun started this process beside a first one, which speaks for all."""
    return os.environ.get("RANK", "0") != "0"
