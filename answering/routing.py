"""A hard router over frozen experts: a linear probe on what the base makes of picture and question names the specialty.

Source: routing a question to one frozen expert as the rival of merging, arXiv:2603.03535; the probe is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from datamodules.batch import Example
from lightning_modules.functional.probe import linear_probe
from lightning_modules.policy import Policy
from lightning_modules.question_states import question_states


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
        features = [question_states(policy, questions[name]) for name in specialties]
        classes = torch.cat([torch.full((len(f),), i) for i, f in enumerate(features)])
        return cls(specialties, *linear_probe(torch.cat(features), classes))

    def choose(self, policy: Policy, questions: Sequence[Example]) -> list[str]:
        """The specialty that each question seems to be of."""
        if not questions:
            return []
        scores = question_states(policy, questions) @ self.W + self.b
        return [self.specialties[i] for i in scores.argmax(1).tolist()]
