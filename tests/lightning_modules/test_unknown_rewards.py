"""Rollouts whose reward could not be had: they are left out of their group, of the loss and of every mean."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from typing_extensions import override

from lightning_modules.advantages.advantage import Outcome, among_known
from lightning_modules.advantages.grpo import GRPO
from lightning_modules.advantages.guideline_based import GuidelineBased
from lightning_modules.advantages.rloo import RLOO
from lightning_modules.rewards.combine import Rewards
from lightning_modules.rewards.correct import Correct
from lightning_modules.rewards.term import UNKNOWN, RewardTerm
from tests.lightning_modules import rl_reference as by_hand
from tests.lightning_modules.rl_harness import GUIDED, a_part, fit, made
from tests.lightning_modules.test_policy_gradient import assert_same_gradient
from tests.lightning_modules.test_rewards import GUIDELINES, HEART


class Opinion(RewardTerm):
    """A judge that scores many at once, and has no answer to some texts."""

    asked: ClassVar[list[int]] = []

    @dataclass(frozen=True)
    class Config(RewardTerm.Config):
        weight: float = 0.3
        silent_on: str = "likelihood"

    @override
    def score(self, judged):
        return UNKNOWN if self.config.silent_on in judged.text else len(judged.text) / 1000

    @override
    def scores(self, judged):
        self.asked.append(len(judged))
        return [self.score(one) for one in judged]


def opinion(**options) -> dict:
    return {"class_path": f"{__name__}.Opinion", "init_args": options}


SETTINGS = {**GUIDED, "rewards": (a_part("rewards.correct.Correct"), opinion()), "kl": None, "transfer": None}


def test_a_step_is_that_of_the_groups_without_the_unknown(tiny_policy, mixed_examples):
    Opinion.asked.clear()
    found = fit(tiny_policy, mixed_examples[:3], **SETTINGS, engine=made())
    rollouts = found.rollouts[0]
    assert Opinion.asked == [len(rollouts.completions)]  # all of a step at once
    unknown = [bool(item.unknown) for item in rollouts.rewards]
    assert 0 < sum(unknown) < len(unknown)
    assert unknown == ["likelihood" in completion.text for completion in rollouts.completions]

    size, weights = rollouts.layout.size, {"correct": 1.0, "opinion": 0.3}
    advantages = torch.zeros(len(unknown), dtype=torch.float64)
    for start in range(0, len(unknown), size):
        rows = [row for row in range(start, start + size) if not unknown[row]]
        group = []
        for row in rows:
            parts = rollouts.rewards[row].parts
            total = sum(weights[name] * value for name, value in parts.items())
            group.append((rollouts.guideline(row), total, total, None))
        advantages[rows] = torch.tensor(by_hand.gba_by_hand(group), dtype=torch.float64)
    torch.testing.assert_close(rollouts.advantages.flatten(), advantages, atol=1e-6, rtol=1e-6)

    by_hand.at_weights(found.stage, found.weights[0])
    old = by_hand.logps_of_rows(found.stage, rollouts)
    rows = [row for row, skipped in enumerate(unknown) if not skipped]
    reference = by_hand.gradient_by_hand(found.stage, rollouts, old, None, advantages, rows)
    assert_same_gradient(found.gradients[0], reference)

    metrics = found.metrics[0]
    assert metrics["train/reward/unknown"] == pytest.approx(sum(unknown) / len(unknown))
    known = [item.total for item in rollouts.rewards if not item.unknown]
    assert metrics["train/reward/total"] == pytest.approx(sum(known) / len(known))


@pytest.mark.parametrize(
    "advantage", [GRPO(), RLOO(), GuidelineBased(), GuidelineBased(GuidelineBased.Config(tau=0.3))]
)
def test_who_is_left_out_changes_nothing_for_the_others(advantage):
    """Whatever stands at the unknown places, the rest gets what it would get in a group of its own."""
    generator = torch.Generator().manual_seed(3)
    guideline_of = torch.tensor([0, 0, 1, 1, 2, 2])
    for _ in range(50):
        total = torch.rand(4, 6, generator=generator, dtype=torch.float64)
        within = torch.rand(4, 6, generator=generator, dtype=torch.float64)
        known = torch.rand(4, 6, generator=generator) < 0.7
        outcome = Outcome(total, total, within, guideline_of, ("a", "b", "c"), torch.ones(3, dtype=torch.float64))
        noise = torch.where(known, total, torch.rand(4, 6, generator=generator, dtype=torch.float64) * 9)
        disturbed = Outcome(noise, noise, within, guideline_of, outcome.guidelines, outcome.prior)
        found = among_known(advantage, outcome, known)
        assert torch.equal(found, among_known(advantage, disturbed, known))
        assert bool((found[~known] == 0).all())
        for question in range(4):
            places = known[question].nonzero()[:, 0]
            if len(places) < 2:
                assert bool((found[question] == 0).all())
                continue
            present, own = guideline_of[places].unique(return_inverse=True)
            names = tuple("abc"[k] for k in present.tolist())
            paid, kept = total[question, places][None], within[question, places][None]
            alone = Outcome(paid, paid, kept, own, names, torch.ones(len(names), dtype=torch.float64))
            torch.testing.assert_close(found[question, places], advantage(alone)[0])


RIGHT = "<think>heart 62 of 110, so the answer is enlarged.</think><answer>B</answer>"
WRONG = "<think>heart 62 of 110, so the answer is normal.</think><answer>A</answer>"
UNDER = GUIDELINES["differential"]


def test_unknown_is_never_zero_and_never_where_nothing_could_be_paid():
    rewards = Rewards([Correct(), Opinion(Opinion.Config(silent_on="62"))])
    right = rewards(RIGHT, HEART, UNDER)
    assert right.unknown == ("opinion",)
    assert right.parts == {"correct": 1.0, "opinion": None}
    assert right.total == 1
    assert rewards(WRONG, HEART, UNDER).unknown == ("opinion",)
    assert rewards("62 and no answer", HEART, UNDER).unknown == ()  # behind a gate nothing would be paid

    class IfRight(Opinion):
        only_if_right = True

    paid_if_right = Rewards([Correct(), IfRight(Opinion.Config(silent_on="62"))])
    assert paid_if_right(RIGHT, HEART, UNDER).unknown == ("if_right",)
    assert paid_if_right(WRONG, HEART, UNDER).unknown == ()


def test_a_term_that_loses_a_completion_is_refused():
    class Forgets(Opinion):
        @override
        def scores(self, judged):
            return super().scores(judged)[1:]

    with pytest.raises(ValueError, match="forgets: got 0 scores of 1 completions"):
        Rewards([Correct(), Forgets()])(RIGHT, HEART, UNDER)
