# Reference: arithmetic by hand, the paired intervals of the parts, and made answers whose share is known.
# Run: pytest tests/evaluation/test_shares.py
import math
import random

import numpy as np
import pytest

from evaluation.bounded import bounded_mean
from evaluation.shares import Outcomes, Share, allowed, share_of_gain
from evaluation.statistics import mean_interval


def made(rng, patients, base, agent, experts, both=2):
    """Answers to two questions of each patient; the chances depend on the patient a little."""
    columns = ([], [], [], [])
    for patient in range(patients):
        shift = rng.uniform(-0.1, 0.1)
        for _ in range(both):
            for column, chance in zip(columns, (base, agent, experts), strict=False):
                column.append(int(rng.random() < chance + shift))
            columns[3].append(patient)
    return Outcomes(*columns)


def test_by_hand():
    # of 10 questions the base has 2, the agent 5, the experts 8: (5 - 2) / (8 - 2) = 0.5
    one = Outcomes([1] * 2 + [0] * 8, [1] * 5 + [0] * 5, [1] * 8 + [0] * 2, range(10))
    assert share_of_gain({"a": one}).share == 0.5
    # of a second specialty 0, 4, 4 of 4; means 0.1, 0.75, 0.9: 0.65 / 0.8
    two = Outcomes([0] * 4, [1] * 4, [1] * 4, range(4))
    assert share_of_gain({"a": one, "b": two}).share == pytest.approx(((0.3 + 1) / 2) / ((0.6 + 1) / 2))
    found = share_of_gain({"a": one, "b": two})
    assert found.low < found.share < found.high


@pytest.mark.parametrize("seed", range(25))
def test_it_holds_no_share_and_the_whole_exactly_where_the_differences_hold_0(seed):
    rng = random.Random(seed)
    chances = sorted(rng.uniform(0.1, 0.9) for _ in range(3))
    columns = {name: made(rng, rng.randint(15, 60), *chances) for name in "abc"[: rng.randint(1, 3)]}
    found = share_of_gain(columns)

    def interval(first, second):
        parts = []
        for one in columns.values():
            difference = np.subtract(getattr(one, second), getattr(one, first))
            parts.append((float(difference.mean()), bounded_mean(difference, one.patients).interval(0.95)))
        return mean_interval(*zip(*parts, strict=True))[1:]

    low, high = interval("base", "experts")
    if low <= 0 <= high:
        assert (found.low, found.high) == (-math.inf, math.inf)
        return
    for share, pair in ((0, ("base", "agent")), (1, ("experts", "agent"))):
        low, high = interval(*pair)
        assert (found.low <= share <= found.high) == (low <= 0 <= high)


def test_where_the_experts_gained_nothing_there_is_no_share():
    same = Outcomes([1, 0, 1], [1, 1, 1], [1, 0, 1], range(3))
    found = share_of_gain({"a": same})
    assert math.isnan(found.share)
    assert (found.low, found.high) == (-math.inf, math.inf)
    few = Outcomes([0, 0, 1], [0, 1, 1], [0, 1, 1], range(3))  # one question more: no gain that is shown
    assert share_of_gain({"a": few}) == Share(1.0, -math.inf, math.inf)
    with pytest.raises(ValueError, match="got 0 estimates"):
        share_of_gain({})


def test_where_the_experts_lost_there_is_no_share_to_tell():
    rng = random.Random(4)
    found = share_of_gain({"a": made(rng, 200, 0.6, 0.7, 0.2)})  # the loss itself is beyond doubt
    assert math.isnan(found.share)
    assert not found.bounded
    assert found.cells == ("", "", "")


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_is_every_share_that_is_tried_one_by_one(seed):
    rng = random.Random(seed)
    columns = {name: made(rng, 40, 0.2, 0.5, 0.8) for name in "ab"}
    found = share_of_gain(columns)
    for share in np.linspace(-0.5, 2, 101):
        parts = []
        for one in columns.values():
            base, agent, experts = map(np.array, (one.base, one.agent, one.experts))
            left = (agent - base - share * (experts - base)) / max(1, share, 1 - share)
            parts.append((float(left.mean()), bounded_mean(left, one.patients).interval(0.95)))
        _, low, high = mean_interval(*zip(*parts, strict=True))
        if min(abs(share - found.low), abs(share - found.high)) > 1e-6:
            assert (low <= 0 <= high) == (found.low <= share <= found.high)


def test_an_agent_worse_than_the_base_has_a_negative_share_and_one_better_than_the_experts_more_than_1():
    rng = random.Random(1)
    below, above = made(rng, 200, 0.4, 0.1, 0.8), made(rng, 200, 0.2, 0.8, 0.5)
    assert share_of_gain({"a": below}).high < 0
    assert share_of_gain({"a": above}).low > 1


def test_it_covers_the_true_share():
    # two specialties of 60 patients, true share (0.45 - 0.3) / (0.7 - 0.3) = 0.375
    rng, hits, rounds = random.Random(2), 0, 300
    for _ in range(rounds):  # the interval is what is allowed, and its ends alone take long to find
        hits += allowed({name: made(rng, 60, 0.3, 0.45, 0.7) for name in "ab"}, 0.375, 0.95)
    assert 0.92 <= hits / rounds <= 0.99
