import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.downloading import turns
from pipeline.downloading.turns import Turns

HOSTS = st.lists(st.integers(0, 6), max_size=60).map(lambda numbers: np.array(numbers, np.int64))


@given(HOSTS, st.integers(1, 4), st.data())
def test_each_position_has_one_turn_and_no_host_more_at_a_time_than_it_may(hosts, per_host, data):
    queue = Turns(hosts, per_host)
    taken, busy = [], []
    while len(taken) < len(hosts):
        room = [p for p in range(len(hosts)) if p not in taken]
        room = [p for p in room if sum(hosts[b] == hosts[p] for b in busy) < per_host]
        if room and (not busy or data.draw(st.booleans())):
            position = queue.take()
            assert position == min(room)
            taken.append(position)
            busy.append(position)
        else:
            queue.fetched(busy.pop(data.draw(st.integers(0, len(busy) - 1))), 0)
    assert sorted(taken) == list(range(len(hosts)))


def test_a_slow_host_keeps_no_other_waiting():
    # Nine of ten URLs are of a host that takes 20 ms, ten times as long as all others together.
    hosts = np.array([0, 0, 0, 0, 0, 0, 0, 0, 0, 1] * 20)
    queue = Turns(hosts, 2)
    ended = {}

    def work():
        while True:
            with lock:
                if len(begun) == len(hosts):
                    return
                begun.append(1)
            position = queue.take()
            time.sleep(0.02 if hosts[position] == 0 else 0.001)
            ended[position] = time.monotonic()
            queue.fetched(position, 0)

    lock, begun = threading.Lock(), []
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ended) == len(hosts)
    order = sorted(ended, key=ended.get)
    others = [order.index(position) for position in range(len(hosts)) if hosts[position]]
    assert max(others) < 30


def test_nothing_more_is_asked_for_while_too_much_waits_to_be_decoded(monkeypatch):
    monkeypatch.setattr(turns, "MAX_WAITING_BYTES", 100)
    queue = Turns(np.arange(3), 2)
    queue.fetched(queue.take(), 101)
    thread = threading.Thread(target=queue.take)
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    queue.decoded(101)
    thread.join(5)
    assert not thread.is_alive()


def test_there_may_be_none():
    assert len(Turns(np.zeros(0, np.int64), 2)) == 0


@pytest.mark.parametrize("per_host", [1, 2, 5])
def test_the_only_host_is_asked_in_order(per_host):
    queue = Turns(np.zeros(20, np.int64), per_host)
    taken = []
    for _ in range(20):
        taken.append(queue.take())
        queue.fetched(taken[-1], 0)
    assert taken == list(range(20))
