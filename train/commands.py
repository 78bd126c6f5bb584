"""The command on finished models, `witmill export`; torch is imported when it runs."""

from typing import Annotated, Literal

from cyclopts import Parameter, validators


def export(
    model: str,
    *,
    output: Annotated[str, Parameter(name=["--output", "-o"])],
    layout: Literal["open_clip", "openai"] = "open_clip",
    resolution: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    half: Annotated[bool, Parameter(negative=())] = False,
    quick_gelu: bool | None = None,
) -> int:
    """Save a model so that open_clip, or what reads OpenAI's files, loads it.

    MODEL may be of either layout itself.

    Example: `witmill export runs/first/train/model.pt --output hub/open_clip_model.safetensors`

    Example: `witmill export runs/first/train/model.pt --layout openai --half --output model-openai.pt`

    Args:
        model: a model.pt of ours; a state dict, TorchScript archive or safetensors of open_clip's or OpenAI's.
        output: file to write; safetensors if its name ends so. Called open_clip_model.safetensors or
            open_clip_pytorch_model.bin, it gets open_clip_config.json beside it, and open_clip loads the folder.
        layout: open_clip: a state dict; openai: the same, with resolution, context and vocabulary in it.
        resolution: side of the pictures in pixels; the embeddings of places are interpolated. Default: the model's.
        half: matrices and convolutions in float16, as in OpenAI's files.
        quick_gelu: the activation that MODEL was trained with, where its file does not say.
    """
    from train.models.export import save_as
    from train.models.initial import load_any

    save_as(
        load_any(model, resolution=resolution, quick_gelu=quick_gelu), output, layout, half=half
    )
    print(output)
    return 0
