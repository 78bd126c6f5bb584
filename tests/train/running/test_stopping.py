import os
import signal
import threading

import pytest

from train.running import stopping
from train.running.stopping import StopSignal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_the_block_goes_on(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignal() as stop:
        assert stop.name is None
        os.kill(os.getpid(), number)
        assert stop.name == number.name
    assert signal.getsignal(number) is before


def test_a_second_interrupt_is_obeyed_at_once_unless_it_is_the_first_ones_echo(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.name == "SIGTERM"
        monkeypatch.setattr(stopping, "SECOND_AFTER_S", 0)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_what_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.name is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_has_no_signals() -> None:
    names = []

    def work() -> None:
        with StopSignal() as stop:
            names.append(stop.name)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert names == [None]
