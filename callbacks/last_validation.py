"""End training through a last validation, so that every curve has a point at its last step."""

from __future__ import annotations

from typing import Any

import lightning as L
from typing_extensions import override


class LastValidation(L.Callback):
    """Asks Lightning to stop when the steps are done: a run that is asked to stop validates first.

    Attributes:
        metrics: of the last step, kept for a run that was killed between its last checkpoint and its result.
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self.metrics: dict[str, float] = {}

    @override
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        if trainer.global_step >= trainer.max_steps:
            trainer.should_stop = True
            # Those of an earlier validation are there only if this very process held it.
            shown = trainer.callback_metrics.items()
            self.metrics = {key: float(value) for key, value in shown if not key.startswith("val/")}

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"metrics": self.metrics}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.metrics = state_dict["metrics"]
