"""Whether the overlap analysis sees contamination that is there, and none that is not.

    python -m benchmarks.contaminated --data ../shared/data --folder /tmp/contaminated

Two corpora of the same CIFAR-10 training pictures are made by the pipeline (`cifar10_corpus.py`). In one,
some pictures of the test set are planted, once each, as the files they are, with captions of their own
class: what the web would do. Wrong captions would show as well, as Overlap below Clean, but nothing that
is copied from a test set has them. A small model is trained on each for so many passes that it knows its
pictures by heart, and classifies the test set, zero-shot. Three analyses follow:

planted     the model that has seen the planted pictures: Overlap must lie above Clean
unseen      the same pictures, the other model, which has not seen them: no difference
untouched   the other corpus and its own model; CIFAR-10 itself has a few pictures in both of its sets
"""

import argparse
from pathlib import Path

from benchmarks.cifar10_corpus import PORT, Corpus, Planting, build_corpus
from pipeline.runtime.executor import InlineExecutor
from train import loop
from train.config import TrainConfig
from train.evaluation import stage
from train.evaluation.config import EvaluateConfig
from train.evaluation.overlap_command import overlap


def main() -> None:
    """Build, train, evaluate and analyse; what is done already is skipped."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="for both workspaces; kept")
    parser.add_argument("--pictures", type=int, default=1_000, help="training pictures of either")
    parser.add_argument("--share", type=float, default=0.03, help="of the test set to plant")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--model", default="ViT-mini")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--port", type=int, default=PORT + 1)
    arguments = parser.parse_args()
    corpora = {
        name: build_corpus(
            arguments.data,
            arguments.folder / name,
            pictures=arguments.pictures,
            planted=Planting(share=share) if share else None,
            drop_overlaps=False,
            port=arguments.port,
        )
        for name, share in (("planted", arguments.share), ("untouched", 0.0))
    }
    for corpus in corpora.values():
        learn(corpus, arguments)
    planted, untouched = (str(corpus.workspace.root) for corpus in corpora.values())
    for name, workspace, evaluation in (
        ("planted", planted, ""),
        ("unseen", planted, untouched),
        ("untouched", untouched, ""),
    ):
        print(f"\n{name}\n")
        overlap(workspace, evaluation=evaluation, output=str(arguments.folder / f"overlap-{name}"))


def learn(corpus: Corpus, arguments: argparse.Namespace) -> None:
    """Train on a corpus until its pictures are known by heart, and classify the test set."""
    training = TrainConfig(
        model=arguments.model,
        batch_size=arguments.batch_size,
        epochs=arguments.epochs,
        device="cpu",
        threads=arguments.threads,
    )
    loop.run(training, corpus.workspace, InlineExecutor())
    evaluation = EvaluateConfig(
        evalsets=str(corpus.evalsets),
        heads=("zero_shot",),
        worst=0,
        device="cpu",
        threads=arguments.threads,
    )
    stage.run(evaluation, corpus.workspace, InlineExecutor())


if __name__ == "__main__":
    main()
