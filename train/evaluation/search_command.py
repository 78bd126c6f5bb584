"""The commands `witmill search` and `witmill matrix`; torch is imported when they run."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from pipeline.errors import ConfigError
from train.config import Device


def search(
    model: str,
    corpus: str,
    text: str = "",
    /,
    *,
    image: str = "",
    top: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=1000))] = 20,
    sheet: Annotated[str, Parameter(name=["--sheet", "-o"])] = "",
    json: Annotated[bool, Parameter(negative=())] = False,
    vectors: str = "",
    device: Device = "auto",
    batch_size: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 256,
    quick_gelu: bool | None = None,
) -> int:
    """Find the pictures of a corpus nearest to a text, or to another picture.

    The first search of a model embeds the whole corpus and keeps the vectors, 2 bytes a number; later
    ones read them alone.

    Example: `witmill search W/train/model.pt W "a red bicycle" --sheet bicycles.png`

    Example: `witmill search ViT-B-32.pt W --image photo.jpg --json`

    Args:
        model: a model.pt of ours; weights of open_clip's or OpenAI's.
        corpus: a workspace with finished shards, or a folder of shards.
        text: what to look for, as a caption would say it.
        image: picture to look for, in place of a text.
        top: pictures to return.
        sheet: PNG to draw, the pictures with their captions.
        json: print one JSON object a line, in place of a table.
        vectors: folder that keeps the vectors; default: `search` in CORPUS.
        device: where to compute; auto: cuda where there is one.
        batch_size: pictures embedded at a time.
        quick_gelu: the activation that MODEL was trained with, where its file does not say.
    """
    from pipeline.pictures.images import decode
    from pipeline.runtime import storage
    from pipeline.shards.corpus import reading, real_path
    from train.evaluation import hits
    from train.evaluation import search as searching
    from train.learning.device import computing
    from train.models.initial import load_any

    if bool(text) == bool(image):
        raise ConfigError('expected a TEXT such as "a red bicycle", or --image, and not both')
    folder = vectors or storage.join(real_path(corpus), "search")
    with reading(corpus) as shards, computing(device, 0) as place:
        clip = load_any(model, quick_gelu=quick_gelu).to(place).eval()
        query = (
            searching.image_vector(clip, storage.read_bytes(image), image)
            if image
            else searching.text_vector(clip, text)
        )
        files = searching.embed_corpus(clip, shards, folder, device=place, batch_size=batch_size)
        found = searching.search(shards, files, query, most=top)
    (hits.print_lines if json else hits.print_table)(found)
    if sheet:
        given = decode(storage.read_bytes(image)).rgb if image else None
        storage.write_bytes(sheet, hits.draw(found, text or Path(image).name, given))
    return 0


def matrix(
    model: str,
    /,
    *pictures: str,
    caption: Annotated[tuple[str, ...], Parameter(name=["--caption", "-c"])] = (),
    output: Annotated[str, Parameter(name=["--output", "-o"])] = "matrix.png",
    device: Device = "auto",
    quick_gelu: bool | None = None,
) -> int:
    """Draw how similar a model finds each picture to each caption: a matrix of cosines.

    Example: `witmill matrix W/train/model.pt cat.jpg dog.jpg -c "a cat" -c "a dog" -o pets.png`

    Args:
        model: a model.pt of ours; weights of open_clip's or OpenAI's.
        pictures: picture files, one column each.
        caption: a caption, one row each; may be given many times.
        output: PNG to draw; the numbers go to standard output.
        device: where to compute; auto: cuda where there is one.
        quick_gelu: the activation that MODEL was trained with, where its file does not say.
    """
    import numpy as np

    from pipeline.pictures.images import decode
    from pipeline.runtime import storage
    from train.evaluation import search as searching
    from train.evaluation.matrix import draw_matrix
    from train.learning.device import computing
    from train.models.initial import load_any

    if not pictures or not caption:
        raise ConfigError("expected at least one picture and one --caption")
    with computing(device, 0) as place:
        clip = load_any(model, quick_gelu=quick_gelu).to(place).eval()
        data = [storage.read_bytes(path) for path in pictures]
        columns = [
            searching.image_vector(clip, d, path) for d, path in zip(data, pictures, strict=True)
        ]
        rows = [searching.text_vector(clip, text) for text in caption]
    cosines = np.stack(rows) @ np.stack(columns).T
    for text, row in zip(caption, cosines, strict=True):
        print("  ".join(f"{cosine:6.3f}" for cosine in row), text, sep="  ")
    storage.write_bytes(output, draw_matrix(cosines, caption, [decode(d).rgb for d in data]))
    print(output)
    return 0
