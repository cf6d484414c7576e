"""Keep the state of an unfinished run, so that repeating the command goes on where it stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from typing_extensions import override

from artifacts.checkpoints import Checkpoints

if TYPE_CHECKING:
    from lightning_modules.stage import Stage


class Stopped(SystemExit):
    """A signal asked the run to stop, and it did, at a safe point.

    No KeyboardInterrupt: Lightning takes one as a reason to kill the other processes of the run at once.
    """


class ResumePoint(Checkpoint):
    """Replaces `last.ckpt` every so many steps, every so many minutes, at the end, and when the run is asked to stop.

    In it are the trained parameters, the optimiser, the schedule, the loader's position, counters and random states. A
    checkpoint that falls on a step at which a validation is due is written after it, so that a resumed run neither
    repeats nor loses it.

    Choice: no ModelCheckpoint of Lightning's, which does not keep time under manual optimisation and knows no signals.
    """

    def __init__(
        self,
        path: Path,
        every_steps: int,
        every_minutes: float,
        val_every: int = 0,
        stop_wanted: Callable[[], bool] = lambda: False,
    ) -> None:
        """Write nothing yet.

        Args:
            path: of the checkpoint.
            every_steps: optimiser steps between two of them, at least 1.
            every_minutes: the longest time between two of them.
            val_every: batches between two validations; 0 if there are none but the first and the last.
            stop_wanted: asked at the end of every batch.
        """
        self.path = path
        self.every_steps, self.every_seconds, self.val_every = every_steps, 60 * every_minutes, val_every
        self.stop_wanted = stop_wanted
        self.saved_at = self.step = 0
        self.saved_time = time.monotonic()
        self.due = False

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: Stage) -> None:
        self.saved_at = self.step = trainer.global_step
        self.saved_time = time.monotonic()

    @override
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Stage, *_: object) -> None:
        # The step moves by several where a batch is used for several updates, and not at all where one is skipped.
        before, self.step = self.step, trainer.global_step
        if self.step >= trainer.max_steps:
            if not sum(trainer.num_val_batches):  # else after the last validation
                self.save(trainer)
            return
        reached = self.step > before and self.step // self.every_steps > self.saved_at // self.every_steps
        late = time.monotonic() - self.saved_time >= self.every_seconds
        decide = trainer.strategy.reduce_boolean_decision  # clocks and signals differ between devices
        stop = decide(self.stop_wanted(), all=False)
        self.due = self.due or stop or reached or decide(late, all=False)
        validated = self.val_every and sum(trainer.num_val_batches)
        if validated and pl_module.batches_done % self.val_every == 0:
            return  # a validation follows
        self.save_if_due(trainer, stop=stop)

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: Stage) -> None:
        stop = trainer.strategy.reduce_boolean_decision(self.stop_wanted(), all=False)
        if trainer.state.fn != "fit":
            if stop:
                raise Stopped("stopped before the first step")
            return
        if self.step >= trainer.max_steps:
            self.save(trainer)  # from here a longer run goes on; a wish to stop waits for the result, which is near
        elif not trainer.should_stop:  # where training ends early, a resumed run shall come to that decision itself
            self.due = self.due or stop or not self.val_every  # of validations by the clock each leaves its checkpoint
            self.save_if_due(trainer, stop=stop)

    def save_if_due(self, trainer: L.Trainer, *, stop: bool) -> None:
        """Write the checkpoint if it is time to, and stop if that was asked for."""
        if self.due:
            self.save(trainer)
        if stop:
            raise Stopped(f"stopped at step {self.step}")

    def save(self, trainer: L.Trainer) -> None:
        """Write the checkpoint, after everything that was logged up to it.

        Raises:
            OSError: the disk is full or the folder cannot be written.
        """
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(self.path, weights_only=False)
        self.saved_at, self.saved_time, self.due = self.step, time.monotonic(), False


def resumed_step(path: Path, max_steps: int) -> int | None:
    """The step from which on a run that goes on from a checkpoint logs anew; None without one.

    That of the checkpoint, whose validation and cards are shown once more when training starts; where no step is left
    to take, training does not start, and all that was logged stays.

    Args:
        path: of the checkpoint.
        max_steps: optimiser steps that the run shall have.

    Raises:
        DamagedError: the file is damaged.
    """
    if not path.exists():
        return None
    held = Checkpoints().load_checkpoint(path)
    return int(held["batches_done"]) + int(held["global_step"] >= max_steps)
