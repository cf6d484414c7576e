"""The optimisers and the learning-rate schedule of every stage."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from typing_extensions import override


def warmup_cosine(step: int, warmup_steps: int, max_steps: int, floor: float) -> float:
    """Learning-rate factor: linear from 1 / warmup to 1, then a cosine down to `floor`.

    Args:
        step: optimiser steps done, from 0.
        warmup_steps: steps of the rise; 0 starts at 1.
        max_steps: last step.
        floor: factor at the end, in [0, 1].
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, max_steps - warmup_steps))
    return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2


def scheduled(optimizer: torch.optim.Optimizer, *, warmup_steps: int, max_steps: int, floor: float = 0.1) -> dict:
    """An optimiser under `warmup_cosine`, in the form that `configure_optimizers` returns."""
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warmup_cosine(step, warmup_steps, max_steps, floor)
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def adamw(parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    """AdamW on what is trainable, without weight decay."""
    return torch.optim.AdamW(
        [p for p in parameters if p.requires_grad], lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.0
    )


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon on the hidden weight matrices, AdamW on everything else, as one optimiser.

    Lightning counts every optimiser's step as a training step, so two of them would halve the run.

    Source: Muon, Jordan 2024; its rate matched to AdamW's update size, Liu et al., arXiv:2502.16982.
    """

    def __init__(
        self, hidden: Sequence[nn.Parameter], others: Sequence[nn.Parameter], *, hidden_rate: float, other_rate: float
    ) -> None:
        """Split the parameters.

        Args:
            hidden: two-dimensional weights inside the network, neither embeddings nor heads.
            others: all other parameters.
            hidden_rate: learning rate of Muon.
            other_rate: learning rate of AdamW.
        """
        self.parts = (
            torch.optim.Muon(
                list(hidden), lr=hidden_rate, momentum=0.9, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.AdamW(list(others), lr=other_rate, betas=(0.9, 0.99), weight_decay=0.0),
        )
        super().__init__([*hidden, *others], {})
        self._link()

    def _link(self) -> None:
        """Share the parts' groups, so that a schedule on this optimiser reaches them."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    @override
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._link()
