"""Progress of a fit with the time that is left: a bar for a terminal, one line now and then for a log file."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar
from typing_extensions import override

from answering.countdown import Countdown


class StepBar(TQDMProgressBar):
    """Lightning's bar over the run's optimiser steps; the loader holds more batches than that."""

    @property
    @override
    def total_train_batches(self) -> int:
        return self.trainer.max_steps


class PlainProgress(ProgressBar):
    """Prints at the first step, then at most every `seconds`, also while validating, and at the end."""

    def __init__(self, name: str, seconds: float = 4.0) -> None:
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
        if not self.is_enabled:
            return  # Lightning lets the first of several devices speak
        now, step = time.monotonic(), trainer.global_step
        if now - self.spoke < self.seconds and step < trainer.max_steps and step > self.first_step + 1:
            return
        self.spoke = now
        left = (now - self.begin) / max(1, step - self.first_step) * (trainer.max_steps - step)
        numbers = {key: value for key, value in self.get_metrics(trainer, pl_module).items() if key != "v_num"}
        shown = "  ".join(f"{key.removeprefix('train/')} {float(value):.3f}" for key, value in numbers.items())
        time_left = timedelta(seconds=round(left))
        print(f"{self.name}  step {step}/{trainer.max_steps}  {shown}  {time_left} left", flush=True)

    @override
    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        total = int(sum(trainer.num_val_batches))
        self.countdown = Countdown(f"{self.name}  validation", total, "batches", self.seconds)

    @override
    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        if self.is_enabled:
            self.countdown.advance(1)
