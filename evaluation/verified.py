"""Several answers to a question and a verifier's probability that each is right: which to give, and when to give none.

Scores in, numbers out. A verifier cannot do better than an oracle that always finds a right answer where there is one
(pass@k), and one that knows nothing does as well as an answer taken at random (pass@1).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import comb

import numpy as np

from evaluation.shares import Outcomes, Share, share_of_gain


def best_of_k(scores: Sequence[float], right: Sequence[bool], k: int) -> float:
    """Chance that the best-scored of k answers drawn from n is right; exact, each of equal scores as likely.

        best@k = Σ_s (C(|≤s|, k) - C(|<s|, k)) / C(n, k) · (share of right answers among those of score s)

    over the distinct scores s, |≤s| answers having at most this score. The answers of the highest score in a draw are
    an exchangeable part of all that have it.

    Args:
        scores: (n,) finite; higher is better.
        right: (n,) whether each answer is.
        k: drawn without replacement, 1 to n.

    Raises:
        ValueError: lengths differ, a score is not finite, or k is out of range.
    """
    n = checked("best_of_k", scores, right)
    if not 1 <= k <= n:
        raise ValueError(f"best_of_k: k must be 1 to n = {n}, the number of answers, got {k}")
    total, below = Fraction(0), 0
    for score in sorted(set(scores)):
        alike = [bool(r) for s, r in zip(scores, right, strict=True) if s == score]
        upto = below + len(alike)
        total += Fraction((comb(upto, k) - comb(below, k)) * sum(alike), len(alike))
        below = upto
    return float(total / comb(n, k))


def weighted_vote(answers: Sequence[str | None], scores: Sequence[float]) -> str | None:
    """The answer whose completions have the largest sum of scores; completions that could not be read abstain.

    Args:
        answers: one per completion.
        scores: (n,) probabilities that each is right.

    Returns:
        The winner; among equals the one named first; None if all abstain.

    Raises:
        ValueError: lengths differ, or a score is not finite.

    Source: Li et al. 2023, arXiv:2206.02336, section 3.3: votes weighted by a verifier.
    """
    checked("weighted_vote", scores, answers)
    sums: dict[str, float] = {}
    for answer, score in zip(answers, scores, strict=True):
        if answer is not None:
            sums[answer] = sums.get(answer, 0.0) + score
    return max(sums, key=lambda answer: sums[answer]) if sums else None


def oracle_share(
    chosen: Sequence[float], taken_at_random: Sequence[float], oracle: Sequence[float], patients: Sequence[Hashable]
) -> Share:
    """Which share of the way from an answer at random to the oracle a choice goes, with Fieller's interval.

        (chosen - pass@1) / (pass@k - pass@1)

    Args:
        chosen: (n,) accuracy of the choice on each question, in [0, 1].
        taken_at_random: (n,) pass@1.
        oracle: (n,) pass@k.
        patients: (n,) whom each question is about.
    """
    return share_of_gain({"all": Outcomes(taken_at_random, chosen, oracle, patients)})


@dataclass(frozen=True)
class Selective:
    """What is right where only the surest answers are given.

    Attributes:
        coverage: (n,) share of questions that are answered, from 1 / n to 1.
        risk: (n,) share of wrong answers among these, in expectation over the order of equally sure ones.
        area: mean of the risks, AURC; lower is better.
        area_at_random: where sureness says nothing: the risk at full coverage.
        area_oracle: where every right answer is surer than every wrong one.
    """

    coverage: np.ndarray
    risk: np.ndarray
    area: float
    area_at_random: float
    area_oracle: float

    def accuracy_at(self, coverage: float) -> float:
        """Accuracy where at least this share of the questions is answered."""
        place = min(len(self.risk) - 1, max(0, math.ceil(coverage * len(self.risk) - 1e-9) - 1))
        return float(1 - self.risk[place])

    def coverage_at(self, accuracy: float) -> float:
        """The largest share of questions that can be answered with this accuracy; 0 where none can."""
        reached = np.flatnonzero(1 - self.risk >= accuracy - 1e-12)
        return float(self.coverage[reached[-1]]) if len(reached) else 0.0


def selective(scores: Sequence[float], right: Sequence[float]) -> Selective:
    """Answer the surest questions first.

    Args:
        scores: (n,) finite; how sure each answer is.
        right: (n,) 1 where it is right, 0 where not, or its chance to be.

    Raises:
        ValueError: lengths differ, there is nothing, or a score is not finite.

    Source: risk-coverage curves, El-Yaniv & Wiener 2010, JMLR 11:1605; area under them, Geifman et al. 2019,
        arXiv:1805.08206. Choice: answers of one score are counted as if in random order.
    """
    n = checked("selective", scores, right)
    held, wrong = np.asarray(scores, dtype=np.float64), 1.0 - np.asarray(right, dtype=np.float64)
    order = np.argsort(-held, kind="stable")
    held, wrong = held[order], wrong[order]
    _, of, counts = np.unique(-held, return_inverse=True, return_counts=True)
    means = np.bincount(of, weights=wrong) / counts
    numbers = np.arange(1, n + 1)
    risk = np.cumsum(means[of]) / numbers
    best = np.cumsum(np.sort(wrong)) / numbers
    return Selective(numbers / n, risk, float(risk.mean()), float(wrong.mean()), float(best.mean()))


def checked(name: str, scores: Sequence[float], beside: Sequence[object]) -> int:
    """How many scores there are.

    Raises:
        ValueError: none, another number than of what stands beside them, or one that is not finite.
    """
    if len(scores) != len(beside) or not len(scores):
        raise ValueError(f"{name}: got {len(scores)} scores for {len(beside)} answers, expected the same, not 0")
    if not all(map(math.isfinite, scores)):
        raise ValueError(f"{name}: scores must be finite, got {next(s for s in scores if not math.isfinite(s))}")
    return len(scores)
