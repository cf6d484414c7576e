"""What the base makes of a question, before any instruction: features for whoever has to tell questions apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from datamodules.batch import Example
from lightning_modules.policy import Images, Policy

AFTER = "."
"""Stands in for an instruction, to see where the part of a prompt ends that all instructions share."""


@torch.no_grad()
def question_states(policy: Policy, questions: Sequence[Example], pictures: Sequence[Images] = ()) -> Tensor:
    """The mean last state over picture and question, before any instruction: (n, H) fp64.

    Args:
        policy: as it acts.
        questions: at least one.
        pictures: of each question, ready; empty where the policy reads them.

    Raises:
        BadExampleError: a picture cannot be read.

    Choice: each question in a pass of its own, so that its state depends on none that happens to be asked beside it,
        on whichever device, and no memory is needed that a training step would not need.
    """
    found = []
    for example, own in zip(questions, pictures or [None] * len(questions), strict=True):
        prompt = policy.prompts(example, ["", AFTER], own)[0]
        states = policy.hidden_states(policy.line([replace(prompt, shared=0)], [[]]))
        found.append(states[: prompt.shared or len(prompt.ids)].double().mean(0).cpu())
    return torch.stack(found)
