"""Keep the state of an unfinished run, so that repeating the command goes on where it stopped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning as L
import torch
from typing_extensions import override

from merge.durable import flush


class ResumePoint(L.Callback):
    """Every `every` optimiser steps, replace `last.ckpt` atomically: trained parameters, optimiser, loader position."""

    def __init__(self, path: Path, every: int = 20) -> None:
        """Write nothing yet.

        Args:
            path: of the checkpoint.
            every: optimiser steps between two of them, at least 1.
        """
        self.path = path
        self.every = every
        self.saved_at = 0

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.saved_at = trainer.global_step

    @override
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        step = trainer.global_step  # moves by more than one where a batch of rollouts is used for several updates
        if step // self.every == self.saved_at // self.every or step >= trainer.max_steps:
            return
        self.saved_at = step
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
