"""What the three kinds of training have in common: a policy, small checkpoints, one optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import lightning as L
import torch
from torch import Tensor
from typing_extensions import override

from datamodules.loading import Feed
from lightning_modules.phases import PhaseClock
from lightning_modules.policy import Policy
from lightning_modules.rewards.guidelines import Guideline, load_guidelines
from lightning_modules.schedule import adamw, scheduled


@dataclass(frozen=True)
class StageContext:
    """What a stage is given besides its own configuration.

    Attributes:
        policy: the base, with the adapters of `start` loaded.
        start: adapters that act, frozen, beneath the one that is trained.
        specialty: name of the specialty.
        seed: of rollouts.
    """

    policy: Policy
    start: tuple[str, ...] = ()
    specialty: str = ""
    seed: int = 0

    @staticmethod
    def guidelines_named(names: Sequence[str]) -> dict[str, Guideline]:
        """Guidelines by name, in this order.

        Raises:
            ValueError: a name has no file in configs/guidelines and is no path of one.
        """
        return load_guidelines(names)


class Stage(L.LightningModule):
    """A LightningModule around a policy, whose checkpoints hold the trainable parameters only.

    Attributes:
        provides: what a finished run leaves for the experiments that require it: base weights, or an adapter.
        adapter: name of the adapter that is trained, empty for base training.
        kind: what the adapter's manifest calls it.
    """

    provides: ClassVar[Literal["base", "expert"]] = "expert"
    adapter: ClassVar[str] = ""
    kind: ClassVar[str] = ""
    config: Any  # the Config dataclass of the concrete stage; has learning_rate and warmup_steps

    def __init__(self, context: StageContext) -> None:
        super().__init__()
        self.context = context
        self.policy = context.policy
        self.strict_loading = False  # checkpoints hold only what is trained
        self.clock = PhaseClock()

    def feed(self) -> Feed:
        """What this stage takes from a data set for training."""
        raise NotImplementedError

    def metrics_at_start(self) -> dict[str, float]:
        """Metrics that the HParams table shows, named before the first step because TensorBoard fixes them then."""
        return {}

    def optimizer(self) -> torch.optim.Optimizer:
        """The optimiser of what is trainable."""
        return adamw(self.parameters(), self.config.learning_rate)

    @override
    def configure_optimizers(self) -> dict:
        return scheduled(self.optimizer(), warmup_steps=self.config.warmup_steps, max_steps=self.trainer.max_steps)

    @override
    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        with self.clock.phase("backward"):
            super().backward(loss, *args, **kwargs)

    @override
    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        with self.clock.phase("optimizer"):  # runs forward and backward as well, which count for themselves
            super().optimizer_step(*args, **kwargs)

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        checkpoint["state_dict"] = {name: v for name, v in checkpoint["state_dict"].items() if name in trained}

    @override
    def transfer_batch_to_device(self, batch, device, dataloader_idx: int):
        return batch  # examples and texts; the policy moves what it makes of them
