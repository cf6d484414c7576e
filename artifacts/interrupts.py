"""Signals wait for a safe point: between two steps nothing is half done, and no lock of a writer's thread is held."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
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


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Hold the first signal back, so that it does not strike in the middle of a write; a second one strikes at once.

    Yields:
        A function that tells whether a signal is waiting; whoever asks stops at the next safe point.

    Raises:
        KeyboardInterrupt: at the end of the block, if a signal is still waiting.
    """
    waiting: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if waiting:
            raise KeyboardInterrupt
        waiting.append(number)
        print("\nstopping at the end of this step; once more to stop at once", flush=True)

    before = {number: signal.getsignal(number) for number in heeded()}
    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: bool(waiting)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if waiting:
        raise KeyboardInterrupt
