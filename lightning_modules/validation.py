"""Validation while a run trains: what its greedy answers are worth, and its loss on worked traces."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Protocol

from torch import nn
from torchmetrics import MeanMetric

from datamodules.batch import Batch
from lightning_modules.policy import Policy


class Outcome(Protocol):
    """How one answer was scored."""

    right: bool
    answered: str | None


Ask = Callable[[Policy, Batch], Sequence[Outcome]]
"""Puts a batch's questions to a policy and scores its answers, one outcome per question."""


class Validation(nn.Module):
    """Means over one pass through the validation questions, over all devices."""

    def __init__(self, names: Sequence[str], several_devices: Callable[[], bool]) -> None:
        """Start empty.

        Args:
            names: of the run, which is a part of the tags, and of the specialties in it that count apart too.
            several_devices: whether the run has others to add up with. That a process group exists does not say so:
                a run on one device may follow one on several in the same process.
        """
        super().__init__()
        self.names = tuple(dict.fromkeys(names))

        def mean() -> MeanMetric:
            return MeanMetric(distributed_available_fn=several_devices)

        self.accuracy, self.parsed = (nn.ModuleList(mean() for _ in self.names) for _ in range(2))
        self.loss = mean()

    def add_answers(self, outcomes: Sequence[Outcome], specialties: Sequence[str] = ()) -> None:
        """Count a batch's answers, where several specialties are mixed for their own too."""
        for number, outcome in enumerate(outcomes):
            for place in {0, self.names.index(specialties[number]) if specialties else 0}:
                self.accuracy[place].update(float(outcome.right))
                self.parsed[place].update(float(outcome.answered is not None))

    def add_loss(self, loss: float, tokens: int) -> None:
        """Count a batch's mean loss over so many completion tokens, in nats."""
        self.loss.update(loss, tokens)

    def results(self) -> dict[str, float]:
        """Means by TensorBoard tag, of what was counted on any device; begins anew."""
        named = {
            **{f"val/accuracy/{name}": metric for name, metric in zip(self.names, self.accuracy, strict=True)},
            **{f"val/parsed/{name}": metric for name, metric in zip(self.names, self.parsed, strict=True)},
            "val/loss": self.loss,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a mean of nothing, which is left out below
            found = {tag: float(metric.compute()) for tag, metric in named.items()}
        for metric in named.values():
            metric.reset()
        return {tag: value for tag, value in found.items() if value == value}  # 0 / 0: nothing was counted
