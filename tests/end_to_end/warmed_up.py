"""Imported where test processes are forked from: what takes seconds at its first use."""

import img2dataset.downloader  # noqa: F401 - for what comes with it

from pipeline.pictures import robots_steps  # noqa: F401 - for what comes with them
from pipeline.pictures.examine import examine
from tests.pipeline.download_runs import png, settings

examine(png(), settings())
