"""The optimiser that every stage uses."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn


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


def adamw(
    parameters: Iterable[nn.Parameter], *, learning_rate: float, warmup_steps: int, max_steps: int, floor: float = 0.1,
    weight_decay: float = 0.0,
) -> dict:
    """AdamW under `warmup_cosine`, in the form that `configure_optimizers` returns."""
    optimizer = torch.optim.AdamW(
        [p for p in parameters if p.requires_grad], lr=learning_rate, betas=(0.9, 0.99), weight_decay=weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warmup_cosine(step, warmup_steps, max_steps, floor)
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
