"""What the modules of a live model read, as Gram matrices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from datamodules.batch import Example
from lightning_modules.policy import Policy

ROWS_AT_ONCE = 24
"""Training rows in one forward pass; changes no result beyond rounding."""
TOKENS_AT_ONCE = 2048
"""Inputs that are held in fp64 at once; changes no result beyond rounding."""


def input_grams(
    policy: Policy, questions: Sequence[Example], names: Sequence[str], answer_with: str
) -> dict[str, Tensor]:
    """The mean of x x^T over all tokens of prompts and traces, per module.

    Args:
        policy: as it acts.
        questions: at least one.
        names: modules of the language model; all their matrices are held at once.
        answer_with: what a trace puts into its answer block.

    Returns:
        Module -> (n, n) fp64.
    """
    modules = dict(policy.family.model.named_modules())
    sums: dict[str, Tensor] = {}
    tokens = dict.fromkeys(names, 0)

    def collect(name: str, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].flatten(0, -2)
        if name not in sums:
            sums[name] = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
        for part in x.split(TOKENS_AT_ONCE):
            wide = part.double()
            sums[name].addmm_(wide.T, wide)
        tokens[name] += len(x)

    hooks = [add_hook(modules[name], name, collect) for name in names]
    try:
        with torch.no_grad():
            for start in range(0, len(questions), ROWS_AT_ONCE):
                part = questions[start : start + ROWS_AT_ONCE]
                prompts = [policy.prompt(example, "") for example in part]
                texts = [trace_of(example, start + i, answer_with) for i, example in enumerate(part)]
                policy.hidden_states(policy.line(prompts, [policy.completion_ids(t)[:-1] if t else [] for t in texts]))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: sums[name].div_(tokens[name]) for name in names}


def add_hook(module: nn.Module, name: str, collect) -> torch.utils.hooks.RemovableHandle:
    """Tell `collect` what a module reads."""
    return module.register_forward_pre_hook(lambda _, inputs: collect(name, inputs))


def trace_of(example: Example, number: int, answer_with: str) -> str:
    """One of the question's worked traces, in turn; empty where it has none."""
    guidelines = sorted(example.reasoning)
    return example.trace(guidelines[number % len(guidelines)], answer_with) if guidelines else ""
