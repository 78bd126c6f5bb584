from collections import Counter
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import schemas
from pipeline.downloading.hosts import (
    HostsTask,
    count_answers,
    hosts_of,
    replace_answers,
    sum_up_hosts,
)
from pipeline.runtime.stage import TaskOutput
from pipeline.runtime.workspace import Workspace


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://Example.ORG/a.jpg", "example.org"),
        ("https://h.example:8443/a?b=c:d@e", "h.example"),
        ("http://user:secret@h.example/a", "h.example"),
        ("http://h.example?x", "h.example"),
        ("http://h.example#x", "h.example"),
        ("http://[2001:DB8::1]:80/a", "[2001:db8::1]"),
        ("http://bücher.example/ä.jpg", "bücher.example"),
        ("no url", ""),
        ("http:///a", ""),
        ("", ""),
    ],
)
def test_the_host_of_a_url(url: str, host: str) -> None:
    assert hosts_of(pa.array([url])).to_pylist() == [host]


@given(st.lists(st.from_regex(r"\Ahttps?://[A-Za-z0-9.-]+(:[0-9]+)?(/[a-z:@?#]*)?\Z"), max_size=9))
def test_the_host_is_what_the_standard_library_finds(urls: list[str]) -> None:
    expected = [urlsplit(url).hostname or "" for url in urls]
    assert hosts_of(pa.array(urls, pa.string())).to_pylist() == expected


Answers = list[tuple[str, str | None, int, int]]
ANSWERS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from([None, "dns", "http_404"]),
        st.integers(1, 5),
        st.integers(0, 100),
    ),
    max_size=20,
)


def table(answers: Answers) -> pa.Table:
    columns = list(zip(*answers, strict=True)) or [[], [], [], []]
    hosts, reasons, pairs, sizes = columns
    return count_answers(
        pa.array(hosts, pa.string()),
        pa.array(reasons, pa.string()),
        pa.array(sizes, pa.int64()),
        np.array(pairs, np.int64),
    )


def counted(answers: Answers) -> dict[tuple[str, str | None], list[int]]:
    sums: dict[tuple[str, str | None], list[int]] = {}
    for host, reason, pairs, size in answers:
        row = sums.setdefault((host, reason), [0, 0, 0])
        for i, value in enumerate((1, pairs, size)):
            row[i] += value
    return sums


def rows(answers: pa.Table) -> dict[tuple[str, str | None], list[int]]:
    return {
        (r["host"], r["reason"]): [r["urls"], r["pairs"], r["bytes"]] for r in answers.to_pylist()
    }


@given(ANSWERS)
def test_answers_are_counted_by_host_and_reason(answers: Answers) -> None:
    found = table(answers)
    assert found.schema == schemas.HOST_ANSWERS
    assert rows(found) == counted(answers)
    order = [(r["host"], r["reason"] is None, r["reason"] or "") for r in found.to_pylist()]
    assert order == sorted(order)


@given(ANSWERS, ANSWERS, ANSWERS)
def test_asking_again_takes_old_answers_out_and_new_ones_in(
    kept: Answers, asked: Answers, now: Answers
) -> None:
    found = replace_answers(table(kept + asked), table(asked), table(now))
    assert found.schema == schemas.HOST_ANSWERS
    assert rows(found) == counted(kept + now)


def test_the_summary_names_hosts_by_what_they_lost(workspace: Workspace) -> None:
    workspace.prepare()
    parts = [
        [("good", None, 1, 9)] * 3 + [("gone", "dns", 4, 0), ("odd", "private_address", 1, 0)],
        [("good", "http_404", 2, 0), ("gone", "timeout", 1, 0), ("gone", "dns", 1, 0)],
    ]
    written = tuple(
        workspace.write(f"download/hosts/{i}.parquet", table(part), schemas.HOST_ANSWERS)
        for i, part in enumerate(parts)
    )
    output = TaskOutput(workspace=workspace, stage="download", index=0)
    outcome = sum_up_hosts(HostsTask(answers=written, output=output))
    assert outcome.counters == {"hosts": 2, "hosts_answered": 1}
    [worst] = outcome.parts["worst_hosts"]
    found = workspace.read(worst, schemas.WORST_HOSTS).to_pylist()
    assert [tuple(row.values()) for row in found] == [
        ("gone", 6, 6, "dns"),
        ("good", 5, 2, "http_404"),
        ("odd", 1, 1, "private_address"),
    ]


def test_a_download_of_nothing_has_no_hosts(workspace: Workspace) -> None:
    output = TaskOutput(workspace=workspace, stage="download", index=0)
    outcome = sum_up_hosts(HostsTask(answers=(), output=output))
    assert Counter(outcome.counters) == Counter(hosts=0, hosts_answered=0)
    assert not outcome.parts
