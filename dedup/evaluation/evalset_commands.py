"""The `witmill evalsets` commands: see what the sets hold, and hash their pictures once."""

from contextlib import closing
from typing import Annotated, Literal

from cyclopts import App, Parameter

from dedup.evaluation.evalsets import EvalSet, entries, format_of, read_evalsets
from pipeline.errors import WitmillError
from pipeline.runtime.executor import make_executor

app = App(name="evalsets", help="Look at evaluation sets, and hash their pictures once.")

ExecutorOption = Annotated[
    Literal["local", "ray"],
    Parameter(help="processes on this machine (the default), or a Ray cluster"),
]
WorkersOption = Annotated[
    int | None, Parameter(help="processes; default: one per core; 0: in this process")
]
_COLUMNS = "{:<16} {:<10} {:>10} {:>8} {:>10}  {:<22} {}"


@app.command(name="list")
def evalsets_list(sets: str) -> int:
    """Show each set's layout, pictures, classes, captions and splits, and whether it can be read.

    The first picture of each set is decoded. Returns 1 if a set cannot be read.

    Example: `witmill evalsets list evalsets.toml`

    Args:
        sets: TOML file that names the sets.
    """
    evalsets = read_evalsets(sets)
    print(_COLUMNS.format("set", "format", "pictures", "classes", "captions", "splits", "readable"))
    readable = [_print_set(evalset) for evalset in evalsets]
    return 0 if all(readable) else 1


@app.command(name="index")
def evalsets_index(
    sets: str,
    *,
    model: str = "",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    output: str | None = None,
    executor: ExecutorOption = "local",
    workers: WorkersOption = None,
) -> int:
    """Hash every picture of the sets once, and embed it where a model is named.

    `witmill dedup` takes what is written beside the TOML file; a set whose files or settings have
    changed since is indexed again, the others are left as they are. Run again after an interruption,
    it goes on where it stopped.

    Example: `witmill evalsets index evalsets.toml --model efficientnet-lite0`

    Args:
        sets: TOML file that names the sets.
        model: embedding model: efficientnet-lite0, or a file, see docs/embeddings.md.
        device: where to embed; auto: cuda where there is one.
        output: folder to write; default: SETS.index beside the TOML file.
    """
    from dedup.evaluation.evalset_index import index_folder, make_index

    evalsets = read_evalsets(sets)
    folder = output or index_folder(sets)
    with closing(make_executor(executor, workers=workers)) as chosen:
        made = make_index(evalsets, folder, chosen, model=model, device=device)
    for name, indexed in made.items():
        state = "unchanged" if indexed.was_there else "indexed"
        print(
            f"{name:<16} {indexed.pictures:>10,} pictures, {indexed.classes:,} classes, "
            f"{indexed.captions:,} captions; {state}"
        )
        if indexed.unreadable:
            print(f"{'':<16} {indexed.unreadable:>10,} unreadable: {indexed.refusal}")
        if indexed.absent:
            print(f"{'':<16} {indexed.absent:>10,} not among the images: their captions alone")
    print(f"in {folder}")
    return 0


def _print_set(evalset: EvalSet) -> bool:
    from pipeline.pictures.images import ImageRefused, decode

    pictures = captions = 0
    classes: set[str] = set()
    splits: dict[str, int] = {}
    kind, problem = "?", ""
    try:
        kind = format_of(evalset)
        for entry in entries(evalset):
            if entry.read is not None and not pictures:
                decode(entry.read())
            pictures += entry.read is not None
            captions += len(entry.captions)
            classes |= {entry.label} if entry.label is not None else set()
            splits[entry.split] = splits.get(entry.split, 0) + 1
    except (WitmillError, ImageRefused) as error:
        problem = f"no: {error}"
    shown = " ".join(f"{split}:{count:,}" for split, count in sorted(splits.items()) if split)
    print(
        _COLUMNS.format(
            evalset.name,
            kind,
            f"{pictures:,}",
            f"{len(classes):,}",
            f"{captions:,}",
            shown or "-",
            problem or "yes",
        )
    )
    return not problem
