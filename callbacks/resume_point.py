"""Keep the state of an unfinished run, so that repeating the command goes on where it stopped."""

from __future__ import annotations

import os
from pathlib import Path

import lightning as L
from typing_extensions import override


class ResumePoint(L.Callback):
    """Every `every` optimiser steps, replace `last.ckpt` atomically: trained parameters, optimiser, loader position."""

    def __init__(self, path: Path, every: int = 20) -> None:
        """Args:
        path: of the checkpoint.
        every: optimiser steps between two of them, at least 1.
        """
        self.path = path
        self.every = every
        self.saved_at = -1

    @override
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        step = trainer.global_step
        if step % self.every or step == self.saved_at or step >= trainer.max_steps:
            return
        self.saved_at = step
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        try:
            trainer.save_checkpoint(part)
            with open(part, "rb") as file:
                os.fsync(file.fileno())
            os.replace(part, self.path)
        finally:
            part.unlink(missing_ok=True)
