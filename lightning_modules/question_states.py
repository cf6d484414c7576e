"""What the base makes of a question, before any instruction: features for whoever has to tell questions apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from datamodules.batch import Example
from lightning_modules.policy import Images, Policy

ROWS_AT_ONCE = 24
"""Questions in one forward pass; changes no feature beyond rounding."""
AFTER = "."
"""Stands in for an instruction, to see where the part of a prompt ends that all instructions share."""


@torch.no_grad()
def question_states(policy: Policy, questions: Sequence[Example], pictures: Sequence[Images | None] = ()) -> Tensor:
    """The mean last state over picture and question, before any instruction: (n, H) fp64.

    Args:
        policy: as it acts.
        questions: at least one.
        pictures: of each question, ready; empty where the policy reads them.
    """
    found = []
    ready = pictures or [None] * len(questions)
    for start in range(0, len(questions), ROWS_AT_ONCE):
        few = zip(questions[start : start + ROWS_AT_ONCE], ready[start : start + ROWS_AT_ONCE], strict=True)
        prompts = [policy.prompts(example, ["", AFTER], own)[0] for example, own in few]
        lengths = [prompt.shared or len(prompt.ids) for prompt in prompts]
        # nothing shared between questions, so that every row of the line is a whole prompt
        line = policy.line([replace(prompt, shared=0) for prompt in prompts], [[]] * len(prompts))
        states = policy.hidden_states(line)
        spans = zip(line.packing.row_starts, lengths, strict=True)
        found += [states[first : first + length].double().mean(0).cpu() for first, length in spans]
    return torch.stack(found)
