"""Says what a program is doing where it has said nothing for some seconds, so that no silence looks like a hang."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TextIO

SECONDS = 4.5
"""The longest silence; with the time between two looks at the clock below five seconds."""
LOOK = 0.25
"""Seconds between two looks."""
_doing: list[tuple[str, float]] = []
"""What is being done, and since when; the innermost last."""


class Heard:
    """A stream that notes when something was last written to it."""

    def __init__(self, stream: TextIO, teller: Teller) -> None:
        """Stand in for a stream.

        Args:
            stream: that gets everything.
            teller: that wants to know.
        """
        self.stream, self.teller = stream, teller

    def write(self, text: str) -> int:
        """Write, and note the time."""
        self.teller.spoke = time.monotonic()
        return self.stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class Teller:
    """Looks at the clock in a thread of its own."""

    def __init__(self, seconds: float) -> None:
        """Start with the last word just said.

        Args:
            seconds: of silence after which it speaks.
        """
        self.seconds, self.spoke, self.over = seconds, time.monotonic(), threading.Event()

    def run(self) -> None:
        """Speak into every silence until it is over."""
        while not self.over.wait(min(LOOK, self.seconds / 4)):
            what, since = _doing[-1] if _doing else ("", 0.0)
            now = time.monotonic()
            if what and now - max(self.spoke, since) >= self.seconds:
                self.spoke = now
                with suppress(OSError, ValueError):  # nobody listens any more: a pipe or a terminal that is closed
                    say(f"{what} … {timedelta(seconds=round(now - since))}")


def say(line: str) -> None:
    """Print a line to stderr; above a bar, if one is drawn there."""
    bars = sys.modules.get("tqdm")
    if bars is not None and sys.stderr.isatty():
        bars.tqdm.write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr, flush=True)


@contextmanager
def telling(seconds: float = SECONDS) -> Iterator[None]:
    """Within the block, what `doing` names is told after every such silence on stdout and stderr."""
    teller = Teller(seconds)
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (Heard(stream, teller) for stream in streams)
    thread = threading.Thread(target=teller.run, name="telling", daemon=True)
    thread.start()
    try:
        yield
    finally:
        teller.over.set()
        thread.join()
        sys.stdout, sys.stderr = streams


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Name what happens in the block; empty where other processes speak for it."""
    _doing.append((what, time.monotonic()))
    try:
        yield
    finally:
        _doing.pop()
