"""Signals wait for a safe point: between two steps nothing is half done, and no lock of a writer's thread is held."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a scheduler's end of time, a closed terminal: all mean to stop, and to go on later."""


def heeded() -> list[signal.Signals]:
    """The signals that this process was not started deaf to (by nohup, say); none outside its main thread."""
    if threading.current_thread() is not threading.main_thread():
        return []
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


def stop_alike() -> None:
    """Let every signal of `SIGNALS` do what Ctrl-C does: raise KeyboardInterrupt where the program stands."""
    for number in heeded():
        signal.signal(number, signal.default_int_handler)


class Waiting:
    """Tells whether a signal is waiting, when it is called; whoever asks stops at the next safe point."""

    def __init__(self) -> None:
        self.signals: list[int] = []
        self.before = {number: signal.getsignal(number) for number in heeded()}

    def __call__(self) -> bool:
        """Whether a signal is waiting."""
        return bool(self.signals)

    def note(self, number: int, frame: FrameType | None) -> None:
        """Take a signal; the second one strikes."""
        if self.signals:
            raise KeyboardInterrupt
        self.signals.append(number)
        print("\nstopping at the end of this step; once more to stop at once", flush=True)

    def take(self) -> None:
        """Hear the signals, also after others have put their own handlers in place."""
        for number in self.before:
            signal.signal(number, self.note)

    def give_back(self) -> None:
        """Restore the handlers that were found."""
        for number, handler in self.before.items():
            signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[Waiting]:
    """Hold the first signal back, so that it does not strike in the middle of a write; a second one strikes at once.

    Yields:
        What tells whether a signal is waiting.

    Raises:
        KeyboardInterrupt: at the end of the block, if a signal is still waiting.
    """
    waiting = Waiting()
    waiting.take()
    try:
        yield waiting
    finally:
        waiting.give_back()
    if waiting():
        raise KeyboardInterrupt
