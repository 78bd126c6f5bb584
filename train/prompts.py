"""Put labels into the words of captions.

The paper's first gain comes from "a photo of a {label}." in place of the bare label, and a larger one
from averaging many such templates (section 3.1.4). An evaluation set names its own templates.
"""

from collections.abc import Sequence


def fill(templates: Sequence[str], label: str) -> list[str]:
    """Return each template with `label` put in the place of {label}."""
    return [template.format(label=label) for template in templates]
