# Reference: every draw counted out by brute force, expectations over every outcome, and gaps by hand.
# Run: pytest tests/evaluation/test_prompt_gap.py
import math
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.predictions import Prediction
from evaluation.prompt_gap import PromptGap, by_type, mean_gap, prompt_gap, sentence, table, verdict
from evaluation.votes import pass_at_k, pooled_pass_at_k

GROUP = st.lists(st.booleans(), min_size=1, max_size=5)


@settings(max_examples=100, deadline=None)
@given(groups=st.lists(GROUP, min_size=1, max_size=3), data=st.data())
def test_pooled_equals_the_share_of_all_draws_in_which_one_is_right(groups, data):
    each = data.draw(st.integers(1, min(map(len, groups))))
    draws = list(product(*(combinations(group, each) for group in groups)))
    by_hand = float(np.mean([any(map(any, draw)) for draw in draws]))
    counts = [(len(group), sum(group)) for group in groups]
    assert pooled_pass_at_k(counts, each * len(groups)) == pytest.approx(by_hand, abs=1e-12)
    if len(groups) == 1:
        assert pooled_pass_at_k(counts, each) == pass_at_k(*counts[0], each)


@settings(max_examples=40, deadline=None)
@given(
    chances=st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.8, 1.0]), min_size=1, max_size=3),
    sizes=st.lists(st.integers(2, 4), min_size=3, max_size=3),
)
def test_pooled_is_unbiased_whatever_the_numbers_of_samples(chances, sizes):
    # expectation over every outcome of the samples: the chance that 2 fresh answers per guideline hold a right one
    total = 0.0
    for outcome in product(*(range(n + 1) for n in sizes[: len(chances)])):
        likelihood = math.prod(
            math.comb(n, c) * p**c * (1 - p) ** (n - c) for n, c, p in zip(sizes, outcome, chances, strict=False)
        )
        total += likelihood * pooled_pass_at_k(list(zip(sizes, outcome, strict=False)), 2 * len(chances))
    assert total == pytest.approx(1 - math.prod((1 - p) ** 2 for p in chances))


def test_pooled_refuses_what_cannot_be_drawn_evenly():
    with pytest.raises(ValueError, match="multiple of the 2 groups, got 3"):
        pooled_pass_at_k([(4, 1), (4, 0)], 3)
    with pytest.raises(ValueError, match="k must be 1 to n = 2"):
        pooled_pass_at_k([(2, 1), (4, 0)], 6)
    with pytest.raises(ValueError, match="0 groups"):
        pooled_pass_at_k([], 4)


def answers(question, guideline, right, patient="p", kind="x"):
    """Samples of one question under one prompt: a string such as "10" is one right and one wrong answer."""
    made = Prediction("m", "s", question, patient, guideline, ("a", "b"), "A", "", {"question_type": kind})
    text = {"1": "<think>it is</think><answer>A</answer>", "0": "<think>it is</think><answer>B</answer>"}
    return [replace(made, completion=text[one], sample=number) for number, one in enumerate(right)]


def test_a_gap_by_hand():
    # q1: neutral 1 of 4, so pass@2 = 1 - C(3,2)/C(4,2) = 1/2; guidelines 4/4 and 0/4, one from each: 1
    # q2: neutral 4 of 4: 1; guidelines 2/4 and 0/4: 1 - (2/4)(4/4) = 1/2
    items = [
        *answers("q1", "neutral", "1000"),
        *answers("q1", "bayesian", "1111"),
        *answers("q1", "intuitive", "0000"),
        *answers("q2", "neutral", "1111", "p2", "y"),
        *answers("q2", "bayesian", "1100", "p2", "y"),
        *answers("q2", "intuitive", "0000", "p2", "y"),
    ]
    gap = prompt_gap(items, 2)
    assert (gap.n, gap.n_clusters) == (2, 2)
    assert list(gap.accuracy) == ["neutral", "bayesian", "intuitive"]
    assert [round(8 * value) for value, _, _ in gap.accuracy.values()] == [5, 6, 0]
    assert gap.neutral[0] == pytest.approx((0.5 + 1) / 2)
    assert gap.guided[0] == pytest.approx((1 + 0.5) / 2)
    assert gap.difference[0] == pytest.approx(0)
    assert (gap.only_guided, gap.only_neutral) == (0.25, 0.25)  # (1 · 1/2 + 1/2 · 0) / 2, and (0 + 1 · 1/2) / 2
    kinds = by_type(items, 2, "question_type")
    assert {name: one.difference[0] for name, one in kinds.items()} == pytest.approx({"x": 0.5, "y": -0.5})
    shown = table({("m", "s", "all"): gap, ("m", "s", "x"): kinds["x"]}, 2)
    assert "pass@2 guided" in shown
    assert len({line.count("|") for line in shown.splitlines()}) == 1


def test_an_answer_under_a_prompt_that_is_missing_is_told():
    with pytest.raises(ValueError, match="'q2' has no answer under 'bayesian'"):
        prompt_gap(
            [*answers("q1", "neutral", "10"), *answers("q1", "bayesian", "10"), *answers("q2", "neutral", "10")], 2
        )
    with pytest.raises(ValueError, match="at least one guideline"):
        prompt_gap(answers("q1", "neutral", "10"), 2)


def simulated(rng, neutral, guided, n, k=4):
    """n questions in pairs by patient; two guidelines, of which the second is never right."""
    items = []
    for number in range(n):
        for prompt, chance in (("neutral", neutral), ("bayesian", guided), ("intuitive", 0.0)):
            right = "".join("1" if rng.random() < chance else "0" for _ in range(k))
            items += answers(f"q{number}", prompt, right, f"p{number // 2}")
    return prompt_gap(items, k)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    truth = (1 - 0.5**2) - (1 - 0.8**4)  # two of the first guideline against four neutral ones
    found = [simulated(rng, 0.2, 0.5, 30) for _ in range(100)]
    assert np.mean([gap.difference[0] for gap in found]) == pytest.approx(truth, abs=0.03)
    assert sum(gap.difference[1] <= truth <= gap.difference[2] for gap in found) >= 90


def made(low, high, n=100):
    level = (0.5, 0.4, 0.6)
    return PromptGap(n, n, {"neutral": level}, level, level, ((low + high) / 2, low, high), 0.0, 0.0)


@settings(max_examples=60, deadline=None)
@given(low=st.floats(-1, 1), width=st.floats(0.001, 1), margin=st.sampled_from([0.01, 0.03, 0.2]))
def test_the_verdict_follows_from_the_interval(low, width, margin):
    gap = made(low, min(1.0, low + width))
    found, told = verdict(gap, margin), sentence(gap, 16, margin)
    high = gap.difference[2]
    assert found == ("nothing to win" if high < margin else "guidelines can win" if low > 0 else "not told")
    assert told.startswith(
        {"n": "There is nothing", "g": "Guidelines can win"}.get(found[0] if found != "not told" else "", "Not told")
    )
    if found == "not told":
        assert low <= 0
        assert high >= margin
        more = int(told.rsplit("about ", 1)[1].split()[0])
        assert more >= gap.n  # an interval that holds both is wider than the margin
    assert f"{100 * low:+.1f} to {100 * high:+.1f}" in told


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.1, 0.02, "nothing to win"),
        (0.005, 0.02, "nothing to win"),
        (0.01, 0.05, "guidelines can win"),
        (-0.01, 0.05, "not told"),
        (0.0, 0.05, "not told"),
        (-0.1, 0.03, "not told"),
    ],
)
def test_verdicts_by_hand(low, high, expected):
    assert verdict(made(low, high), 0.03) == expected


def test_the_mean_over_specialties_counts_each_once():
    gap = mean_gap([made(0.0, 0.2), made(0.2, 0.4, 1000)])
    assert gap.difference[0] == pytest.approx(0.2)
    assert gap.difference[2] - gap.difference[0] == pytest.approx(0.1 / 2**0.5)
    assert "would tell" not in sentence(mean_gap([made(-0.2, 0.2)] * 2), 16, 0.03)
