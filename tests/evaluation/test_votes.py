# Reference: every subset counted out by brute force; run with `pytest tests/evaluation/test_votes.py`.
from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.predictions import Prediction
from evaluation.several import several
from evaluation.votes import maj_at_k, pass_at_k, vote


def test_vote_by_hand():
    assert vote(["A", "B", "B", None]) == "B"
    assert vote(["B", "A", "A", "B"]) == "B"  # a tie: who was named first
    assert vote([None, None]) is None
    assert vote([None, "C", None]) == "C"
    assert vote([]) is None


def majority_share(letters, gold):
    counts = Counter(letter for letter in letters if letter is not None)
    top = [letter for letter in counts if counts[letter] == max(counts.values())]
    return (gold in top) / len(top) if top else 0.0


@settings(max_examples=150, deadline=None)
@given(letters=st.lists(st.sampled_from(["A", "B", "C", "D", None]), min_size=1, max_size=9), data=st.data())
def test_both_equal_the_mean_over_all_subsets(letters, data):
    k = data.draw(st.integers(1, len(letters)))
    subsets = list(combinations(letters, k))
    assert maj_at_k(Counter(letters), "A", k) == pytest.approx(
        float(np.mean([majority_share(subset, "A") for subset in subsets])), abs=1e-12
    )
    assert pass_at_k(len(letters), letters.count("A"), k) == pytest.approx(
        float(np.mean(["A" in subset for subset in subsets])), abs=1e-12
    )


def test_identities():
    counts = Counter({"A": 5, "B": 3, None: 2})
    assert maj_at_k(counts, "A", 1) == pass_at_k(10, 5, 1) == 0.5
    assert maj_at_k(counts, "A", 10) == 1.0
    assert maj_at_k(counts, "B", 10) == 0.0
    assert maj_at_k(Counter({None: 4}), "A", 2) == 0.0
    assert pass_at_k(100_000, 1, 50_000) == 0.5
    assert [pass_at_k(8, 2, k) for k in (7, 8)] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pass_at_k(4, 1, 0), "k must be 1 to n = 4"),
        (lambda: pass_at_k(4, 1, 5), "k must be 1 to n = 4"),
        (lambda: pass_at_k(4, 5, 2), "correct must be 0 to n = 4"),
        (lambda: maj_at_k({"A": 2}, "A", 3), "k must be 1 to n = 2"),
        (lambda: maj_at_k({"A": 2, "B": -1}, "A", 1), "not be negative"),
    ],
)
def test_bad_counts_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def asked(question, letter, guideline="neutral", sample=0, gold="A"):
    text = f"<think>the heart is wide</think><answer>{letter}</answer>"
    options = ("large", "small", "normal")
    return Prediction("base", "chest", question, "p", guideline, options, gold, text, sample=sample)


def test_several_by_hand():
    names = ("differential", "intuitive", "analytical", "bayesian")
    # q0: A A B C, gold A: the vote is right; q1: B A B ?, gold A: it is not; q2: B A C ?, a tie, B first, gold A: wrong
    rows = [
        asked(f"q{i}", letter, name)
        for i, said in enumerate(("AABC", "BABx", "BACx"))
        for letter, name in zip(said, names, strict=True)
    ]
    found = several(rows)
    assert (found.n, found.completions, found.vote) == (3, 4, pytest.approx(1 / 3))
    assert found.by_guideline == pytest.approx({"differential": 1 / 3, "intuitive": 1, "analytical": 0, "bayesian": 0})
    # pass@1 = (2/4 + 1/4 + 1/4) / 3; at 2: 1 - C(2,2)/6 = 5/6, 1 - C(3,2)/6 = 1/2 twice
    assert found.pass_at == pytest.approx({1: 1 / 3, 2: 11 / 18, 4: 1.0})
    # maj@4: right, wrong, one of three tied letters
    assert found.maj_at[4] == pytest.approx((1 + 0 + 1 / 3) / 3)
    assert found.maj_at[1] == pytest.approx(found.pass_at[1])


def test_options_in_another_order_vote_by_their_text():
    rows = [asked("q0", letter, sample=i) for i, letter in enumerate("AB")]
    rows.append(replace(asked("q0", "B", sample=2, gold="B"), options=("small", "large", "normal")))
    assert several(rows).vote == 1.0  # large, small, large


def test_a_question_with_fewer_completions_is_refused():
    with pytest.raises(ValueError, match="between 1 and 2 completions"):
        several([asked("q0", "A"), asked("q0", "A", sample=1), asked("q1", "A")])
    with pytest.raises(ValueError, match="expected the same number"):
        several([])
