"""How a question's rollouts are spread over guidelines, and the random stream that each of them has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from datamodules.prompts import NEUTRAL
from lightning_modules.rollout import stream_seed


@dataclass(frozen=True)
class Layout:
    """The places of a group, guideline after guideline.

    Attributes:
        counts: guideline name -> g_k, rollouts under it.
    """

    counts: Mapping[str, int]

    @property
    def guidelines(self) -> tuple[str, ...]:
        """K names in order."""
        return tuple(self.counts)

    @cached_property
    def places(self) -> tuple[tuple[int, int], ...]:
        """(guideline, copy) of each of the R places of a group."""
        return tuple((k, copy) for k, count in enumerate(self.counts.values()) for copy in range(count))

    @property
    def size(self) -> int:
        """R, rollouts of one question."""
        return len(self.places)

    @cached_property
    def guideline_of(self) -> Tensor:
        """(R,) int64."""
        return torch.tensor([k for k, _ in self.places])

    def seeds(self, *stream: object) -> list[int]:
        """One stream per place of a group, named by `stream`, guideline and copy."""
        return [stream_seed(*stream, self.guidelines[k], copy) for k, copy in self.places]


def layout_of(guidelines: tuple[str, ...], per_guideline: int, neutral_share: float) -> Layout:
    """Spread a group.

    Args:
        guidelines: names, the neutral prompt among them or not.
        per_guideline: g, rollouts under each of them.
        neutral_share: share of the group under the neutral prompt, in [0, 1), which then is none of `guidelines`;
            rounded to whole rollouts, at least one.

    Examples:
        >>> dict(layout_of(("differential", "bayesian"), 4, 0.2).counts)
        {'neutral': 2, 'differential': 4, 'bayesian': 4}
    """
    guided = dict.fromkeys(guidelines, per_guideline)
    if not neutral_share:
        return Layout(guided)
    neutral = max(1, round(neutral_share / (1 - neutral_share) * sum(guided.values())))
    return Layout({NEUTRAL: neutral, **guided})
