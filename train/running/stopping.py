"""Let a step in hand end before a signal ends the run."""

import signal
import threading
import time
from types import FrameType, TracebackType

SECOND_AFTER_S = 1.0
"""A terminal's ^C reaches each process both directly and by way of torchrun, at nearly the same time."""


class StopSignal:
    """While its block runs, SIGTERM and SIGINT are noted instead of ending the process.

    A second SIGINT, a second or more after the first, interrupts at once. Signals that were ignored
    stay so. Outside the main thread, where Python has no signals, it does nothing.

    Attributes:
        name: of the signal that has come, such as "SIGTERM"; None before.
    """

    name: str | None = None
    _since: float = 0.0

    def __enter__(self) -> "StopSignal":
        self._previous = {
            number: signal.signal(number, self._note)
            for number in (signal.SIGTERM, signal.SIGINT)
            if threading.current_thread() is threading.main_thread()
            and signal.getsignal(number) is not signal.SIG_IGN
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.name and number == signal.SIGINT and now - self._since > SECOND_AFTER_S:
            raise KeyboardInterrupt
        self.name = self.name or signal.Signals(number).name
        self._since = self._since or now
