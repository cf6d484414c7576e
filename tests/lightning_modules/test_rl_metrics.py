# Reference: arithmetic by hand on made rollouts. Run: pytest tests/lightning_modules/test_rl_metrics.py
import math

import pytest
import torch

from lightning_modules.layout import layout_of
from lightning_modules.rewards.combine import Reward
from lightning_modules.rl_metrics import correlation, equal, letter_distance, pass_at_k, rollout_metrics
from lightning_modules.rollout import Completion
from lightning_modules.rollouts import Rollouts
from tests.conftest import made_example


def rewarded(right: bool, adherence: float | None) -> Reward:
    parts = {"correct": float(right), "format": 1.0, "adherence": adherence}
    total = right + 0.1 + 0.2 * (adherence or 0.0)
    within, letter = None if adherence is None else 0.2 * adherence, "AB"[right]
    return Reward(total, parts, right + 0.1, within, None, letter, right, answer=letter)


def made(rights: str, adherence: list[float]) -> Rollouts:
    """Rollouts of questions with 2 neutral and 2 x 2 guided rows: "1" is a right one."""
    layout = layout_of(("differential", "bayesian"), 2, 1 / 3)
    questions = len(rights) // layout.size
    values = iter(adherence)
    rewards = [
        rewarded(mark == "1", None if row % layout.size < 2 else next(values)) for row, mark in enumerate(rights)
    ]
    completions = [Completion((5,) * (row + 1), (0.0,) * (row + 1), "", row == 0) for row in range(len(rights))]
    examples = tuple(made_example(n) for n in range(questions))
    carried, prior = [layout.guidelines] * questions, dict.fromkeys(layout.guidelines, 1.0)
    found = Rollouts(examples, tuple(range(questions)), layout, carried, [], [], completions, rewards, prior)
    found.advantages = torch.tensor([[0.0, 1, 0, 2, -3, 0]] * questions)
    return found


def test_metrics_by_hand():
    # question 1: neutral 1 of 2, differential 2 of 2, bayesian 0 of 2; question 2: nobody
    rollouts = made("101100" + "000000", [0.5, 1.0, 0.0, 0.0] + [0.0] * 4)
    metrics = rollout_metrics(rollouts)
    assert metrics["train/reward/correct"] == pytest.approx(3 / 12)
    assert metrics["train/reward/total"] == pytest.approx((3 + 12 * 0.1 + 0.2 * 1.5) / 12)
    assert metrics["train/reward/adherence"] == pytest.approx(1.5 / 8)  # neutral rows have none
    assert metrics["train/guideline/differential/correct"] == pytest.approx(2 / 4)
    assert metrics["train/guideline/differential/adherence"] == pytest.approx(1.5 / 4)
    assert "train/guideline/neutral/adherence" not in metrics
    assert metrics["train/guideline/differential/won"] == 0.5  # alone in the first question, nobody in the second
    assert metrics["train/guideline/neutral/won"] == metrics["train/guideline/bayesian/won"] == 0.0
    assert metrics["train/guideline/differential/advantage"] == pytest.approx(1.0)
    assert metrics["train/guideline/bayesian/advantage_size"] == pytest.approx(1.5)
    assert metrics["train/dead_rows"] == 0.5  # three of six advantages are exactly zero
    assert metrics["train/dead_groups/correct"] == metrics["train/dead_groups/adherence"] == 0.5
    assert metrics["train/dead_groups/format"] == 1.0
    # guided 2 of 4, neutral 1 of 2 in question 1: pass@2 of guided is 1 - 1/6
    assert metrics["train/prompt_gap/guided_pass_at_k"] == pytest.approx((5 / 6) / 2)
    assert metrics["train/prompt_gap/neutral_pass_at_k"] == pytest.approx(1 / 2)
    assert metrics["train/prompt_gap/correct"] == pytest.approx(2 / 8 - 1 / 4)
    assert metrics["train/completion/truncated"] == pytest.approx(1 / 12)
    assert metrics["train/completion/tokens"] == pytest.approx(6.5)
    # right is B: three of twelve answered B, nine A
    assert letter_distance(rollouts) == pytest.approx(9 / 12)


def test_pass_at_k_by_hand():
    assert pass_at_k(4, 0, 2) == 0.0
    assert pass_at_k(4, 3, 2) == 1.0
    assert pass_at_k(4, 1, 2) == pytest.approx(0.5)


def test_equal_groups_and_correlation():
    table = torch.tensor([[1.0, 1.0], [1.0, 0.0], [math.nan, 2.0], [math.nan, math.nan]])
    assert equal(table).tolist() == [True, False, True, True]
    assert correlation(torch.tensor([1.0, 2.0, math.nan]), torch.tensor([2.0, 4.0, 9.0])) == pytest.approx(1.0)
    assert math.isnan(correlation(torch.tensor([1.0, 1.0]), torch.tensor([2.0, 4.0])))
