"""Time the caption rules, one by one and as a whole stage, and count what each drops.

    python benchmarks/captions.py CAPTIONS.parquet --column TEXT

Processor time on one core, the best of several rounds.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import captions as stage
from pipeline import schemas
from pipeline.caption_text.measures import measure
from pipeline.caption_text.rules import RULES, Captions, CaptionsConfig
from pipeline.inputs.pairs import pair_ids
from pipeline.runtime.executor import make_executor
from pipeline.runtime.settings import Settings
from pipeline.runtime.stage import begin
from pipeline.runtime.workspace import Workspace

ROUNDS = 5
PAIRS = 400_000


def seconds(work: Callable[[], object]) -> float:
    """Return the least processor time of several rounds of `work`."""
    times = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        work()
        times.append(time.process_time() - begun)
    return min(times)


def stage_seconds(texts: pa.Array, config: CaptionsConfig) -> float:
    """Return the processor time of the whole stage over one part of PAIRS pairs."""
    many = pa.concat_arrays([texts] * -(-PAIRS // len(texts)))[:PAIRS]
    urls = [f"http://example.com/{i}.jpg" for i in range(PAIRS)]
    columns = {
        "pair_id": pair_ids(urls, many.to_pylist()),
        "url": urls,
        "caption": many,
        "caption_source": ["alt"] * PAIRS,
        "page_url": [f"http://{i}.example.com/" for i in range(PAIRS)],
        "source": ["benchmark"] * PAIRS,
        "source_offset": range(PAIRS),
        "blur_boxes": [None] * PAIRS,
        "query_ids": [[1, 2, 3]] * PAIRS,
        "language": ["en"] * PAIRS,
        "language_probability": [0.9] * PAIRS,
    }
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(root=folder)
        before = begin("language", Settings(), workspace)
        table = pa.table(columns, schema=schemas.LANGUAGES)
        drops = schemas.DROPS.empty_table()
        written = before.output(0).write(
            rows_in=PAIRS, kept=table, schema=schemas.LANGUAGES, drops=drops
        )
        before.finish([written])
        with closing(make_executor("local", workers=0)) as executor:
            begun = time.process_time()
            stage.run(config, workspace, executor)
            return time.process_time() - begun


def main() -> None:
    """Time everything and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("captions", type=Path, help="Parquet file with captions")
    parser.add_argument("--column", default="TEXT", help="the captions' column")
    arguments = parser.parse_args()
    column = pq.read_table(arguments.captions, columns=[arguments.column]).column(0).drop_null()
    texts = column.combine_chunks().cast(pa.string())
    config = CaptionsConfig()
    counted = stage.judge(texts, config).value_counts().to_pylist()
    drops = {row["values"]: row["counts"] for row in counted}
    captions = Captions(texts)
    print("| step | ns a caption | captions dropped |\n|---|---:|---:|")
    print(f"| counting | {seconds(lambda: measure(texts)) / len(texts) * 1e9:,.0f} | |")
    for rule in RULES:
        took = seconds(lambda rule=rule: rule.applies(captions, config))
        dropped = 100 * drops.get(rule.reason, 0) / len(texts)
        print(f"| `{rule.reason}` | {took / len(texts) * 1e9:,.0f} | {dropped:.2f}% |")
    whole = seconds(lambda: stage.judge(texts, config)) / len(texts)
    print(f"\nall rules: {1 / whole:,.0f} captions/s")
    for name, disabled in (("without", ("boilerplate",)), ("with", ())):
        took = stage_seconds(texts, CaptionsConfig(disabled=disabled))
        print(f"the stage, Parquet to Parquet, {name} boilerplate: {PAIRS / took:,.0f} captions/s")


if __name__ == "__main__":
    main()
