"""The optimisers and the learning-rate schedule of every stage."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import nn
from typing_extensions import override

from datamodules.order import turn_of

Shape = Literal["cosine", "linear", "constant"]
"""How the learning rate falls after its rise."""

Optimizer = Literal["adamw", "adamw8bit", "paged_adamw8bit"]
"""AdamW with its moments in fp32, or in 8 bits by bitsandbytes, or those and moved out of a full card's memory."""

CLASSES = {"adamw": "AdamW", "adamw8bit": "AdamW8bit", "paged_adamw8bit": "PagedAdamW8bit"}
"""What their libraries call them."""


def warmup_steps(warmup: float, max_steps: int) -> int:
    """Optimiser steps of the rise: a share of all steps below 1, a number of them from 1 on.

    >>> warmup_steps(0.125, 160), warmup_steps(20, 160), warmup_steps(0, 160)
    (20, 20, 0)
    """
    return round(warmup * max_steps) if warmup < 1 else round(warmup)


def rate_factor(step: int, shape: Shape, rise: int, max_steps: int, floor: float) -> float:
    """Learning-rate factor: linear from 1 / rise to 1, then down to `floor` in the given shape.

    Args:
        step: optimiser steps done, from 0.
        shape: `constant` stays at 1 and has no floor.
        rise: steps of the rise; 0 starts at 1.
        max_steps: last step.
        floor: factor at the end, in [0, 1].
    """
    if step < rise:
        return (step + 1) / rise
    if shape == "constant":
        return 1.0
    progress = min(1.0, (step - rise) / max(1, max_steps - rise))
    left = (1 + math.cos(math.pi * progress)) / 2 if shape == "cosine" else 1 - progress
    return floor + (1 - floor) * left


def scheduled(
    optimizer: torch.optim.Optimizer, *, shape: Shape, warmup: float, max_steps: int, floor: float, turns: int = 1
) -> dict:
    """An optimiser under `rate_factor`, in the form that `configure_optimizers` returns.

    Args:
        optimizer: at its peak rates.
        shape: as of `rate_factor`.
        warmup: as of `warmup_steps`, of each turn.
        max_steps: of all turns.
        floor: as of `rate_factor`.
        turns: parts, see `turn_of`, of which each begins the schedule anew.
    """

    def factor(step: int) -> float:
        _, first, end = turn_of(step, max_steps, turns)
        return rate_factor(step - first, shape, warmup_steps(warmup, end - first), end - first, floor)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def set_rates(schedule: torch.optim.lr_scheduler.LambdaLR) -> None:
    """Give the optimiser the rates of the step that a restored schedule stands at.

    Restored groups hold the rate of the schedule that they were saved under, which of a longer run is another one.
    """
    for group, peak, factor in zip(
        schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
    ):
        group["lr"] = peak * factor(schedule.last_epoch)


def adamw(
    parameters: Iterable[nn.Parameter],
    learning_rate: float,
    *,
    betas: tuple[float, float],
    weight_decay: float,
    kind: Optimizer = "adamw",
) -> torch.optim.Optimizer:
    """AdamW on what is trainable.

    Args:
        parameters: of which those that require a gradient are taken.
        learning_rate: peak.
        betas: of the two moments.
        weight_decay: decoupled.
        kind: see `Optimizer`.
    """
    trained = [p for p in parameters if p.requires_grad]
    library = torch.optim if kind == "adamw" else importlib.import_module("bitsandbytes.optim")
    made = getattr(library, CLASSES[kind])
    return made(trained, lr=learning_rate, betas=betas, weight_decay=weight_decay)


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon on the hidden weight matrices, AdamW on everything else, as one optimiser.

    Lightning counts every optimiser's step as a training step, so two of them would halve the run.

    Source: Muon, Jordan 2024; its rate matched to AdamW's update size, Liu et al., arXiv:2502.16982.
    """

    def __init__(
        self,
        hidden: Sequence[nn.Parameter],
        others: Sequence[nn.Parameter],
        *,
        hidden_rate: float,
        other_rate: float,
        betas: tuple[float, float],
        weight_decay: float,
    ) -> None:
        """Split the parameters.

        Args:
            hidden: two-dimensional weights inside the network, neither embeddings nor heads.
            others: all other parameters.
            hidden_rate: learning rate of Muon.
            other_rate: learning rate of AdamW.
            betas: of AdamW; Muon's momentum stays 0.9.
            weight_decay: of both.
        """
        self.parts = (
            torch.optim.Muon(
                list(hidden), lr=hidden_rate, momentum=0.9, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.AdamW(list(others), lr=other_rate, betas=betas, weight_decay=weight_decay),
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
