"""A hard router over frozen experts: a linear probe on what the base makes of picture and question names the specialty.

Source: routing a question to one frozen expert as the rival of merging, arXiv:2603.03535; the probe is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from datamodules.batch import Example
from lightning_modules.functional.probe import linear_probe
from lightning_modules.policy import Policy

ROWS_AT_ONCE = 24
"""Questions in one forward pass; changes no feature beyond rounding."""
AFTER = "."
"""Stands in for an instruction, to see where the part of a prompt ends that all instructions share."""


@dataclass(frozen=True)
class Router:
    """Names the specialty of a question."""

    specialties: tuple[str, ...]
    W: Tensor
    """(H, K) fp64."""
    b: Tensor
    """(K,) fp64."""

    @classmethod
    def fitted(cls, policy: Policy, questions: Mapping[str, Sequence[Example]]) -> Router:
        """Fit the probe.

        Args:
            policy: the bare base.
            questions: specialty -> training questions, at least one each.
        """
        specialties = tuple(sorted(questions))
        features = [prefix_features(policy, questions[name]) for name in specialties]
        classes = torch.cat([torch.full((len(f),), i) for i, f in enumerate(features)])
        return cls(specialties, *linear_probe(torch.cat(features), classes))

    def choose(self, policy: Policy, questions: Sequence[Example]) -> list[str]:
        """The specialty that each question seems to be of."""
        if not questions:
            return []
        scores = prefix_features(policy, questions) @ self.W + self.b
        return [self.specialties[i] for i in scores.argmax(1).tolist()]


@torch.no_grad()
def prefix_features(policy: Policy, questions: Sequence[Example]) -> Tensor:
    """The mean last state over picture and question, before any instruction: (n, H) fp64.

    Args:
        policy: as it acts.
        questions: at least one.
    """
    found = []
    for start in range(0, len(questions), ROWS_AT_ONCE):
        prompts = [policy.prompts(example, ["", AFTER])[0] for example in questions[start : start + ROWS_AT_ONCE]]
        lengths = [prompt.shared or len(prompt.ids) for prompt in prompts]
        # nothing shared between questions, so that every row of the line is a whole prompt
        line = policy.line([replace(prompt, shared=0) for prompt in prompts], [[]] * len(prompts))
        states = policy.hidden_states(line)
        spans = zip(line.packing.row_starts, lengths, strict=True)
        found += [states[first : first + length].double().mean(0).cpu() for first, length in spans]
    return torch.stack(found)
