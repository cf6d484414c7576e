# Reference: the truth that answers are drawn from. How often a table of `compare` says "better" or "worse" of two
# models that are equally good, how often its intervals hold the difference, how often what it calls visible is seen.
# Run: pytest tests/evaluation/test_levels.py, with -m slow for the whole grid.
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtri

from evaluation.pairwise import compare_pair, judged
from evaluation.predictions import Prediction
from evaluation.systems import System

SHAPES = ("one", "four", "unequal", "giant")
"""Questions per patient: one; four; drawn, with a mean of three; half of all about one patient, the rest few each."""


def sizes_of(shape, n, rng):
    if shape == "one":
        return [1] * n
    sizes = [n // 2] if shape == "giant" else []
    while sum(sizes) < n:
        sizes.append(min(n - sum(sizes), 4 if shape == "four" else int(rng.geometric(1 / 3))))
    return sizes


def design(shape, n, specialties, rng):
    """Two systems without answers, and the number of each question's patient."""
    items, of, patients = {}, [], 0
    for k in range(specialties):
        held = np.repeat(
            np.arange(patients, patients + n), np.pad(sizes := sizes_of(shape, n, rng), (0, n - len(sizes)))
        )
        patients += len(sizes)
        for i, patient in enumerate(held):
            made = Prediction("m", f"s{k}", f"q{i}", f"p{patient}", "neutral", ("a", "b"), "A", "A")
            items[made.key] = made
        of.append(held)
    return System("a", 0, "a", items, {}), System("b", 0, "b", items, {}), np.concatenate(of)


def answers(of, accuracies, rng, alike=0.2, apart=0.3):
    """Right or wrong of two models: a question's and a patient's difficulty, and what a patient does to each model."""
    patients, n = int(of.max()) + 1, len(of)
    common = math.sqrt(alike) * rng.normal(size=patients)[of] + math.sqrt(0.3) * rng.normal(size=n)
    for accuracy in accuracies:
        own = math.sqrt(apart) * rng.normal(size=patients)[of] + math.sqrt(0.7 - alike - apart) * rng.normal(size=n)
        yield common + own < ndtri(accuracy)


def tables(shape, n, specialties, accuracies, times, seed=0, **effects):
    """So many tables of `compare`, each of a new draw."""
    rng = np.random.default_rng(seed)
    for time in range(times):
        if time % 10 == 0:  # other patients
            first, second, of = design(shape, n, specialties, rng)
        drawn = answers(of, accuracies, rng, **effects)
        pair = [
            replace(system, right=dict(zip(system.items, map(int, right), strict=True)))
            for system, right in zip((first, second), drawn, strict=True)
        ]
        yield judged(compare_pair(*pair))


def rates(found, accuracies):
    """Shares: tables with a verdict, rows whose interval holds the difference, and intervals that hold the accuracy."""
    difference = accuracies[1] - accuracies[0]
    rows = [row for table in found for row in table]
    said = sum(any(row.verdict != "no evidence" for row in table) for table in found) / len(found)
    held = sum(row.low <= difference <= row.high for row in rows) / len(rows)
    sides = [(row.interval_a, accuracies[0]) for row in rows] + [(row.interval_b, accuracies[1]) for row in rows]
    return said, held, sum(low <= accuracy <= high for (low, high), accuracy in sides) / len(sides)


def beyond(share, times):
    """Three standard errors of a share that is found by drawing."""
    return 3 * math.sqrt(share * (1 - share) / times)


def check(shape, n, specialties, level, times, seed=0):
    found = list(tables(shape, n, specialties, (level, level), times, seed))
    said, held, sides = rates(found, (level, level))
    assert said <= 0.05 + beyond(0.05, times), (shape, n, specialties, level, said)
    # rows of one table go together, so that they count as one draw
    assert held >= 0.94 - beyond(0.06, times), (shape, n, specialties, level, held)
    assert sides >= 0.94 - beyond(0.06, times), (shape, n, specialties, level, sides)
    return said, held, sides


@pytest.mark.parametrize(
    ("shape", "n", "specialties"),
    [("one", 4, 2), ("one", 8, 1), ("four", 20, 2), ("unequal", 60, 1), ("giant", 20, 3), ("one", 60, 3)],
)
def test_equal_models_are_told_apart_in_at_most_one_table_of_twenty(shape, n, specialties):
    check(shape, n, specialties, 0.6, 400 if n < 20 else 120)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [4, 8, 20, 60, 200])
@pytest.mark.parametrize("specialties", [1, 2, 3])
def test_equal_models_over_the_whole_grid(shape, n, specialties):
    for level in (0.5, 0.9):
        print(shape, n, specialties, level, *check(shape, n, specialties, level, 1000 if n < 100 else 400))


@pytest.mark.parametrize(
    ("shape", "n", "specialties", "accuracies"),
    [("one", 8, 1, (0.1, 0.9)), ("one", 20, 1, (0.3, 0.8)), ("four", 60, 1, (0.35, 0.7)), ("one", 4, 3, (0.1, 0.9))],
)
def test_large_differences_are_seen(shape, n, specialties, accuracies):
    found = list(tables(shape, n, specialties, accuracies, 100))
    assert sum(table[-1].verdict == "better" for table in found) > 60
    assert not any(row.verdict == "worse" for table in found for row in table)


@pytest.mark.parametrize(("shape", "n", "specialties"), [("one", 60, 1), ("four", 60, 1), ("unequal", 100, 1)])
def test_what_is_called_visible_is_seen_in_four_tables_of_five(shape, n, specialties):
    called = [table[-1].detectable for table in tables(shape, n, specialties, (0.4, 0.65), 40)]
    difference = float(np.median(called))
    found = [table[-1] for table in tables(shape, n, specialties, (0.4, 0.4 + difference), 150, seed=1)]
    assert 0.68 < sum(row.p < 0.05 for row in found) / 150 < 0.92
