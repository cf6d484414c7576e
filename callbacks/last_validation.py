"""End training through a last validation, so that every curve has a point at its last step."""

from __future__ import annotations

import lightning as L
from typing_extensions import override


class LastValidation(L.Callback):
    """Asks Lightning to stop when the steps are done: a run that is asked to stop validates first."""

    @override
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        if trainer.global_step >= trainer.max_steps:
            trainer.should_stop = True
