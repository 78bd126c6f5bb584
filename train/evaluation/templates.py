"""Which captions stand for the classes of a set: those it names itself, or published ones.

The paper's first gain comes from "a photo of a {label}." in place of the bare label, and a larger one
from averaging many such templates (section 3.1.4).
"""

import re
from collections.abc import Sequence

from dedup.evaluation import published
from dedup.evaluation.evalsets import EvalSet, prompts_of
from pipeline.errors import ConfigError
from train.evaluation.config import OWN, PAPER


def templates_for(name: str, evalset: EvalSet) -> tuple[str, ...]:
    """Return the templates called `name`, one of config.TEMPLATES, for a set.

    Raises:
        ConfigError: if the paper's are asked for, and the set is called like none of the paper's.
    """
    if name == OWN:
        return prompts_of(evalset)
    if name != PAPER:
        return published.templates(name)
    known = {_plain(one): one for one in published.SETS}
    for called in (evalset.names, evalset.name):
        if found := known.get(_plain(called)):
            return published.templates(found)
    raise ConfigError(
        f"evaluation set {evalset.name} is none of the paper's by its name, so it has no templates "
        f"called paper; name it one of {', '.join(published.SETS)}, or give others by --templates"
    )


def fill(templates: Sequence[str], label: str) -> list[str]:
    """Return each template with each of the names in `label`, parted by "|", in the place of {label}."""
    return [template.format(label=name) for name in label.split("|") for template in templates]


def shown(label: str) -> str:
    """Return the first of the names in `label`, to stand in tables."""
    return label.partition("|")[0]


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())
