"""Ask again, of a finished download, for what was dropped for some reasons, and for nothing else.

What comes is added to the stage as further parts; of the parts concerned, the tables of drops and of
host answers are written anew. The tables of a part bear its number, whichever revision wrote them.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schemas
from pipeline.download import REASONS, DownloadConfig, DownloadTask
from pipeline.downloading.hosts import UNREACHED, HostsTask, replace_answers, sum_up_hosts
from pipeline.downloading.robots_steps import read_all_robots
from pipeline.downloading.stored import DownloadedPart
from pipeline.errors import ConfigError
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import DROPS, MAIN, Manifest, Outcome, Part
from pipeline.runtime.progress import say
from pipeline.runtime.revision import remainder, revise
from pipeline.runtime.stage import StageRun, TaskOutput

_HTTP = "http_"


@dataclass(frozen=True, kw_only=True)
class FindTask:
    """See whether a part has drops for one of the reasons."""

    drops: Part
    reasons: tuple[str, ...]
    output: TaskOutput


@dataclass(frozen=True, kw_only=True)
class RetryTask:
    """Ask again for the pairs of one part that were dropped for one of the reasons."""

    download: DownloadTask
    drops: Part
    hosts: Part
    reasons: tuple[str, ...]


def ask_again(
    stage: StageRun,
    done: Manifest,
    config: DownloadConfig,
    tasks: Callable[[StageRun, DownloadConfig], Sequence[DownloadTask]],
    executor: Executor,
) -> Manifest:
    """Make the revision of a finished download in which the pairs dropped for `retry` were asked again.

    Args:
        tasks: returns the download of each part, for a run of the stage and settings.

    Raises:
        ConfigError: if a name is that of no reason.
    """
    reasons = select_reasons(config.retry, done.drops)
    if not reasons:
        say(f"download   has dropped nothing for {', '.join(config.retry)}; nothing is asked again")
        return done
    if not set(reasons).isdisjoint(UNREACHED):
        # Such hosts may well be gone: that they still give no answer is no sign of an outage.
        config = config.model_copy(update={"max_unreachable": 1.0})
    stage = revise(stage, done, {"retry": list(reasons)})
    downloads = tasks(stage, config)
    drops = _by_number(done.tables[DROPS])
    finding = [
        FindTask(drops=part, reasons=reasons, output=stage.output(number))
        for number, part in sorted(drops.items())
    ]
    found = dict(zip(sorted(drops), stage.map(executor, "find", find_drops, finding), strict=True))
    concerned = [number for number, outcome in found.items() if outcome.counters]
    before = _added_up(outcome.counters for outcome in found.values())
    hosts = _by_number(done.tables["hosts"])
    asking = [
        RetryTask(download=downloads[i], drops=drops[i], hosts=hosts[i], reasons=reasons)
        for i in concerned
    ]
    robots = read_all_robots(stage, executor, config, concerned_urls, asking)
    outcomes = stage.map(executor, "retry", ask_part, asking)
    rewritten = [*(drops[i] for i in concerned), *(hosts[i] for i in concerned)]
    answers = [part for part in done.tables["hosts"] if part not in rewritten]
    answers += [part for outcome in outcomes for part in outcome.parts.get("hosts", [])]
    summary = HostsTask(answers=tuple(answers), output=stage.output(0))
    [hosts_now] = stage.map(executor, "hosts", sum_up_hosts, [summary])
    rest = remainder(
        done,
        rows_in=before.total(),
        drops=before,
        counters=hosts_now.counters,
        files=[*rewritten, *done.tables.get("worst_hosts", [])],
    )
    return stage.finish([rest, *robots, *outcomes, hosts_now])


def select_reasons(named: Sequence[str], present: Mapping[str, int]) -> tuple[str, ...]:
    """Return those of the `present` reasons that are meant: by name, `http_` and first digits, or all.

    Raises:
        ConfigError: if a name is that of no reason.
    """
    for name in named:
        is_http = re.fullmatch(rf"{_HTTP}\d{{0,3}}", name)
        if name != "all" and not is_http and name not in {*REASONS, *present}:
            seen = ", ".join(f"{reason} {count:,}" for reason, count in present.items())
            raise ConfigError(
                f"download.retry names {name}, which is no reason; this download dropped pairs for: "
                f"{seen or 'none'}; all and beginnings such as http_5 can be given, too"
            )
    return tuple(
        reason
        for reason in sorted(present)
        if any(
            name in ("all", reason) or (name.startswith(_HTTP) and reason.startswith(name))
            for name in named
        )
    )


def _by_number(parts: Sequence[Part]) -> dict[int, Part]:
    return {_number(part): part for part in parts}


def _number(part: Part) -> int:
    return int(part.path.rpartition("/")[2].partition(".")[0].partition("-")[0])


def find_drops(task: FindTask) -> Outcome:
    """Count, as counters, the drops of a part by reason, if one of the reasons asked for is among them."""
    reasons = task.output.read(task.drops, schemas.DROPS, ["reason"]).column("reason")
    counts = {str(r["values"]): int(r["counts"]) for r in reasons.value_counts().to_pylist()}
    if counts.keys().isdisjoint(task.reasons):
        return Outcome()
    return Outcome(counters=counts)


def concerned_urls(task: RetryTask) -> pa.ChunkedArray:
    """Return the URLs of the pairs that a task asks again for."""
    return _concerned(task)[0].column("url")


def ask_part(task: RetryTask) -> Outcome:
    """Ask again for what a part had dropped; what comes gives files of its own."""
    download, output = task.download, task.download.output
    pairs, again, others = _concerned(task)
    part = DownloadedPart(pairs, download.config, download.journal)
    counters = part.fetch(download)
    tar = part.write_tar(output.workspace, output.name("tar", "images"))
    kept, dropped = part.tables(tar.path)
    places = pc.index_in(pairs.column("pair_id"), again.column("pair_id").combine_chunks())
    earlier = part.earlier_host_answers(again.column("reason").take(places).combine_chunks())
    before = output.read(task.hosts, schemas.HOST_ANSWERS)
    hosts = replace_answers(before, earlier, part.host_answers())
    outcome = output.write(
        rows_in=task.drops.rows,
        kept=kept,
        schema=schemas.DOWNLOADED,
        drops=pa.concat_tables([others, dropped]),
        every_drop=True,
        side={"hosts": (hosts, schemas.HOST_ANSWERS)},
        files={"images": [tar]},
        counters=counters,
    )
    if kept.num_rows:
        return outcome
    # Without a new picture later stages stay as they are: files that nothing names are removed.
    parts = {name: files for name, files in outcome.parts.items() if name not in (MAIN, "images")}
    return replace(outcome, parts=parts)


def _concerned(task: RetryTask) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Return the pairs to ask again for, their rows of DROPS, and the others there."""
    output = task.download.output
    drops = output.read(task.drops, schemas.DROPS)
    is_concerned = pc.is_in(drops.column("reason"), pa.array(task.reasons))
    again = drops.filter(is_concerned)
    pairs = output.read(task.download.part, schemas.BALANCED)
    is_asked = pc.is_in(pairs.column("pair_id"), again.column("pair_id").combine_chunks())
    return pairs.filter(is_asked), again, drops.filter(pc.invert(is_concerned))


def _added_up(counts: Iterable[Mapping[str, float]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update({reason: int(number) for reason, number in count.items()})
    return total
