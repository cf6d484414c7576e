"""Progress with the time that is left: a bar for a terminal, one line now and then for a log file."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from multiprocessing import parent_process
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar
from tqdm import tqdm
from typing_extensions import override


class StepBar(TQDMProgressBar):
    """Lightning's bar over the run's optimiser steps; the loader holds more batches than that."""

    @property
    @override
    def total_train_batches(self) -> int:
        return self.trainer.max_steps


class PlainProgress(ProgressBar):
    """Prints at the first step, then at most every `seconds`, and at the end."""

    def __init__(self, name: str, seconds: float = 15.0) -> None:
        """Say nothing yet.

        Args:
            name: of the run.
            seconds: between two lines.
        """
        super().__init__()
        self.name = name
        self.seconds = seconds
        self.is_enabled = True  # asked by LightningModule.print, as are `print` and the two switches

    @override
    def enable(self) -> None:
        self.is_enabled = True

    @override
    def disable(self) -> None:
        self.is_enabled = False

    @override
    def print(self, *args: Any, **kwargs: Any) -> None:
        print(*args, flush=True, **kwargs)

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.begin = self.spoke = time.monotonic()
        self.first_step = trainer.global_step

    @override
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        now, step = time.monotonic(), trainer.global_step
        if now - self.spoke < self.seconds and step < trainer.max_steps and step > self.first_step + 1:
            return
        self.spoke = now
        left = (now - self.begin) / max(1, step - self.first_step) * (trainer.max_steps - step)
        numbers = {key: value for key, value in self.get_metrics(trainer, pl_module).items() if key != "v_num"}
        shown = "  ".join(f"{key.removeprefix('train/')} {float(value):.3f}" for key, value in numbers.items())
        time_left = timedelta(seconds=round(left))
        print(f"{self.name}  step {step}/{trainer.max_steps}  {shown}  {time_left} left", flush=True)


class Countdown:
    """Progress of work that comes in pieces: a bar for a person, for a log at most one line every `seconds`."""

    def __init__(self, name: str, total: int, unit: str, seconds: float = 15.0) -> None:
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
