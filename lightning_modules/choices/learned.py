"""Guidelines chosen by what similar questions have earned under them, learnt while the policy is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from datamodules.batch import Example
from guards.ranges import Ranged, above, at_least
from lightning_modules.choices.choice import Choice, Seen
from lightning_modules.functional.thompson import reward_posterior, standardised


class Learned(Choice):
    """Thompson sampling: each guideline's reward is a linear function of the question, of which a guess is drawn.

    A question's guided rollouts stand in K blocks of `rollouts_per_guideline`. Each block draws a reward for every
    guideline, from what is believed of it after the steps before, and has the guideline whose draw is best. While
    little is known the blocks differ; later those that are surely worse are no longer tried.

    Source: Agrawal & Goyal 2013, arXiv:1209.3352; the question's features are the base's own states.
    Choice: a belief per guideline, each question's draws independent of the others', so that they do not depend on how
        a step is spread over devices; only the newest results count, as the policy that earned them has moved on.
    """

    reads_questions: ClassVar[bool] = True

    @dataclass(frozen=True)
    class Config(Ranged):
        """What is believed before anything is seen, and for how long results count."""

        prior_std: Annotated[float, above(0)] = 0.5
        """Of a weight, in units of the compared reward; above 0. Larger: rewards may depend more on the question."""
        noise_std: Annotated[float, above(0)] = 0.3
        """Of a question's mean reward around what its features tell, in the same units; above 0."""
        window: Annotated[int, at_least(1)] = 2048
        """Newest results that count, each of one question under one guideline; at least 1."""

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config)
        self._states = torch.zeros(0, 0)
        self._guidelines: list[str] = []
        self._rewards = torch.zeros(0, dtype=torch.float64)

    @override
    def __call__(
        self, questions: Sequence[Example], states: Tensor, guidelines: Sequence[str], seeds: Sequence[int]
    ) -> list[tuple[str, ...]]:
        mean, std = self.believed(states, guidelines)
        found = []
        for own_mean, own_std, seed in zip(mean, std, seeds, strict=True):
            noise = torch.randn(
                len(guidelines), len(guidelines), dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
            )
            best = (own_mean + own_std * noise).argmax(dim=1)  # a row of draws for each block
            found.append(tuple(guidelines[k] for k in best.tolist()))
        return found

    def believed(self, states: Tensor, guidelines: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Mean and deviation of what questions would earn under each guideline: (P, K) and (P, K)."""
        if not self._guidelines:
            nothing = torch.zeros(len(states), len(guidelines), dtype=torch.float64)
            return nothing, nothing + self.config.prior_std
        about = {"prior_std": self.config.prior_std, "noise_std": self.config.noise_std}
        X, asked = standardised(self._states, self._states), standardised(states, self._states)
        usual = self._rewards.mean()  # of all guidelines, for one of which nothing is known
        found = []
        for name in guidelines:
            own = torch.tensor([other == name for other in self._guidelines])
            found.append(reward_posterior(X[own], self._rewards[own] - usual, asked, **about))
        return usual + torch.stack([mean for mean, _ in found], dim=1), torch.stack([std for _, std in found], dim=1)

    @override
    def learn(self, seen: Sequence[Seen]) -> None:
        if not seen:
            return
        newest = self.config.window
        states = torch.stack([one.state for one in seen]).float()
        self._states = torch.cat([self._states, states] if self._guidelines else [states])[-newest:]
        self._guidelines = [*self._guidelines, *(one.guideline for one in seen)][-newest:]
        rewards = torch.tensor([one.reward for one in seen], dtype=torch.float64)
        self._rewards = torch.cat([self._rewards, rewards])[-newest:]

    @override
    def state(self) -> dict[str, Any]:
        return {"states": self._states, "guidelines": self._guidelines, "rewards": self._rewards}

    @override
    def resume(self, state: Mapping[str, Any]) -> None:
        self._states, self._rewards = state["states"], state["rewards"]
        self._guidelines = list(state["guidelines"])
