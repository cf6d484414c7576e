"""Keep the state of a run: repeating the command goes on where it stopped, or with more steps where it ended."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from typing_extensions import override

from artifacts.durable import flush


class ResumePoint(L.Callback):
    """Every `every` optimiser steps, at the last one, and when it is asked to stop, replaces `last.ckpt` atomically.

    In it are the trained parameters, the optimiser, the schedule and the loader's position.
    """

    def __init__(self, path: Path, every: int = 20, stop_wanted: Callable[[], bool] = lambda: False) -> None:
        """Write nothing yet.

        Args:
            path: of the checkpoint.
            every: optimiser steps between two of them, at least 1.
            stop_wanted: asked at the end of every batch.
        """
        self.path = path
        self.every = every
        self.stop_wanted = stop_wanted
        self.saved_at = self.step = 0

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.saved_at = self.step = trainer.global_step

    @override
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        # The step moves by several where a batch is used for several updates, and not at all while gradients add up.
        before, self.step = self.step, trainer.global_step
        if self.step >= trainer.max_steps:
            self.save(trainer)  # from here a longer run goes on; a wish to stop waits for the result, which is near
            return
        stop = self.stop_wanted()
        if self.step > before and (stop or self.step // self.every > self.saved_at // self.every):
            self.save(trainer)
        if stop:
            raise KeyboardInterrupt

    def save(self, trainer: L.Trainer) -> None:
        """Write the checkpoint aside, flush it, and put it in place.

        Raises:
            OSError: the disk is full or the folder cannot be written.
        """
        self.saved_at = self.step
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        try:
            trainer.save_checkpoint(part, weights_only=False)
            flush(part)
            os.replace(part, self.path)
        finally:
            part.unlink(missing_ok=True)


def batches_done(trainer: L.Trainer) -> int:
    """TensorBoard's step: batches done, fewer than `global_step` where a batch of rollouts is used repeatedly."""
    return trainer.fit_loop.epoch_loop.batch_progress.total.ready


def resumed_step(path: Path) -> int | None:
    """Batches done, and so the step that is logged next, at a checkpoint; None without one.

    Raises:
        ValueError: the file is not a checkpoint of this code base.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return int(state["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"])
    except Exception as error:  # whatever torch's reader raises on damage
        raise ValueError(f"{path}: cannot be read ({error}); delete it to start this run anew") from error
