"""Progress of work that comes in pieces, with the time that is left."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from multiprocessing import parent_process

from tqdm import tqdm


class Countdown:
    """Progress of work that comes in pieces: a bar for a person, for a log at most one line every `seconds`."""

    def __init__(self, name: str, total: int, unit: str, seconds: float = 5.0) -> None:
        """Start the clock.

        Args:
            name: of the work.
            total: pieces in all.
            unit: what they are, in the plural.
            seconds: between two lines.
        """
        self.name, self.total, self.unit, self.seconds = name, total, unit, seconds
        self.done = self.found = 0
        self.begin = self.spoke = time.monotonic()
        alone = (
            sys.stderr.isatty() and parent_process() is None
        )  # the bars of several workers would overwrite each other
        self.bar = tqdm(total=total, desc=name, unit=f" {unit}") if alone else None

    @property
    def left(self) -> timedelta:
        """Time to go, at the pace of what was not found done."""
        pace = (time.monotonic() - self.begin) / max(1, self.done - self.found)
        return timedelta(seconds=round(pace * (self.total - self.done)))

    def advance(self, pieces: int, *, found: bool = False) -> None:
        """Count pieces that are done; those that were found done say nothing about the pace."""
        self.done += pieces
        self.found += pieces if found else 0
        now = time.monotonic()
        if self.bar is not None:
            self.bar.update(pieces)
        elif now - self.spoke >= self.seconds:
            self.spoke = now
            print(f"{self.name}  {self.done}/{self.total} {self.unit}  {self.left} left", flush=True)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        tqdm.write(text) if self.bar is not None else print(text, flush=True)

    def close(self) -> None:
        """Leave the bar where it stands."""
        if self.bar is not None:
            self.bar.close()
