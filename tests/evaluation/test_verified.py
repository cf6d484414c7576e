# Reference: every draw written out, and arithmetic by hand. Run: pytest tests/evaluation/test_verified.py
import itertools
import math
import random
from statistics import fmean

import numpy as np
import pytest

from evaluation.choosing import Verified, line_of, lines_of
from evaluation.predictions import Prediction
from evaluation.verified import best_of_k, oracle_share, selective, weighted_vote
from evaluation.votes import pass_at_k


@pytest.mark.parametrize("seed", range(25))
def test_best_of_k_is_the_mean_over_all_draws(seed):
    draw = random.Random(seed)
    n = draw.randint(1, 7)
    scores, right = [draw.choice((0.1, 0.5, 0.9, -2.0)) for _ in range(n)], [draw.random() < 0.5 for _ in range(n)]
    for k in range(1, n + 1):
        found = []
        for taken in itertools.combinations(range(n), k):
            top = max(scores[i] for i in taken)
            found.append(fmean(right[i] for i in taken if scores[i] == top))
        assert best_of_k(scores, right, k) == pytest.approx(fmean(found))
    assert best_of_k(scores, right, 1) == pytest.approx(fmean(right))
    # who knows the truth is the oracle, and who turns it round is right only where all are
    assert best_of_k([float(r) for r in right], right, n) == pass_at_k(n, sum(right), n)
    assert best_of_k([-float(r) for r in right], right, n) == float(all(right))


def test_weighted_vote_by_hand():
    # two for a with 0.2 + 0.3, one for b with 0.6; what could not be read has no vote
    assert weighted_vote(["a", "b", "a", None], [0.2, 0.6, 0.3, 5.0]) == "b"
    assert weighted_vote(["a", "b", "a", None], [0.2, 0.4, 0.3, 5.0]) == "a"
    assert weighted_vote([None, None], [1.0, 1.0]) is None
    assert weighted_vote(["b", "a"], [0.5, 0.5]) == "b"
    for bad in (lambda: weighted_vote(["a"], [math.nan]), lambda: best_of_k([1.0], [True, False], 1)):
        with pytest.raises(ValueError, match=r"got|finite"):
            bad()
    with pytest.raises(ValueError, match="k must be 1 to n = 2"):
        best_of_k([1.0, 2.0], [True, False], 3)


def test_risk_and_coverage_by_hand():
    # surest first: right, wrong, right, right
    found = selective([4.0, 3.0, 2.0, 1.0], [True, False, True, True])
    assert found.coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert found.risk.tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 4])
    assert found.area == pytest.approx(fmean([0, 1 / 2, 1 / 3, 1 / 4]))
    assert (found.area_at_random, found.area_oracle) == (0.25, pytest.approx(1 / 16))
    assert [found.accuracy_at(c) for c in (0.25, 0.5, 0.51, 1.0)] == pytest.approx([1, 0.5, 2 / 3, 0.75])
    assert [found.coverage_at(a) for a in (1.0, 0.7, 0.76)] == [0.25, 1.0, 0.25]
    # equally sure answers count as in random order: the risk is that of all at every coverage
    even = selective([1.0] * 4, [True, False, True, True])
    assert even.risk.tolist() == [0.25] * 4
    assert selective([1.0], [False]).coverage_at(0.5) == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_what_tells_nothing_has_the_area_of_chance(seed):
    draw = np.random.default_rng(seed)
    right = draw.random(4000) < 0.6
    assert selective(draw.random(4000), right).area == pytest.approx(0.4, abs=0.05)
    told = selective(right + 0.0, right)
    assert told.area == pytest.approx(told.area_oracle)


def answer(question, sample, letter, model="m", gold="A", patient=None):
    text = f"<think>so.</think><answer>{letter}</answer>"
    return Prediction(
        model, "s", f"q{question}", patient or f"p{question}", "neutral", ("wide", "narrow"), gold, text, sample=sample
    )


def test_choices_beside_pass_and_majority():
    # of three answers: q0 A B B, q1 A A B, q2 B B B; right is A
    said, odds = ["ABB", "AAB", "BBB"], [(3.0, -1.0, -2.0), (-1.0, -1.0, 2.0), (1.0, 0.0, 0.0)]
    answers = [
        Verified(answer(q, i, letter), odds[q][i]) for q, letters in enumerate(said) for i, letter in enumerate(letters)
    ]
    (line,) = lines_of(answers)
    assert (line.n, line.k) == (3, 3)
    # q0: majority B, weights 0.95 against 0.27 + 0.12; best A. q1: majority A, weights 0.54 against 0.88; best B.
    assert {name: value[0] for name, value in line.chosen.items()} == pytest.approx(
        {"majority": 1 / 3, "weighted vote": 1 / 3, "best of n": 1 / 3}
    )
    assert line.at_k[1] == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert line.at_k[3] == pytest.approx((2 / 3, 1 / 3, 1 / 3))
    assert line.difference[0] == 0
    assert line.difference[1] < 0 < line.difference[2]
    assert line.gap["best of n"].share == pytest.approx(0.0)
    assert line.curve.risk.tolist() == pytest.approx([0, 1 / 2, 2 / 3])  # by 3.0, 2.0, 1.0
    with pytest.raises(ValueError, match="questions have 2 to 3 answers"):
        lines_of(answers[:-1])
    with pytest.raises(ValueError, match="at least two"):
        line_of("m", "s", [[answers[0]]])


def test_a_verifier_that_gives_all_answers_the_same_odds_gains_nothing():
    # Half of any question's answers are right: each of equal odds is as likely, so that best of 2 is one at random.
    line, turned = (
        line_of("m", "s", [[Verified(answer(q, i, letter), 0.0) for i, letter in enumerate(said)] for q in range(40)])
        for said in ("AB", "BA")
    )
    assert line.chosen["best of n"][0] == 0.5
    assert line.chosen["majority"][0] == 1  # of equals the one named first
    assert line.difference[0] == -0.5
    assert turned.difference[0] == 0.5
    low, high = turned.difference[1:]
    assert -1 < low < 0.5 < high < 1


def test_an_oracle_recovers_the_whole_gap_and_chance_none_of_it():
    draw = random.Random(3)
    letters = [[draw.choice("AB") for _ in range(4)] for _ in range(300)]
    told = [
        [Verified(answer(q, i, letter), odds(letter)) for i, letter in enumerate(held)]
        for q, held in enumerate(letters)
        for odds in [lambda letter: float(letter == "A")]
    ]
    line = line_of("m", "s", told)
    assert line.gap["best of n"].share == pytest.approx(1.0)
    assert line.chosen["best of n"][0] == line.at_k[4][0] > 0.9
    assert line.chosen["weighted vote"][0] > line.chosen["majority"][0]
    blind = line_of("m", "s", [[Verified(one.item, draw.random()) for one in held] for held in told])
    share = blind.gap["best of n"]
    assert share.low < 0 < share.high < 0.5
    assert oracle_share([1.0] * 5, [1.0] * 5, [1.0] * 5, range(5)).bounded is False
