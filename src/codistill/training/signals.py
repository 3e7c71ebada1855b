"""Ctrl-C and SIGTERM as requests that the loop answers when its step is done."""

import signal
import threading
from types import FrameType, TracebackType


class StopRequest:
    """While it is entered, a first SIGINT or SIGTERM is noted; a second one acts at once.

    Attributes:
        signal_number: What asked for the stop, or 0.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        """Take over the two signals; outside the main thread nothing is changed."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal_number = number
        for taken, handler in self._previous.items():
            signal.signal(taken, handler)  # type: ignore[arg-type]
