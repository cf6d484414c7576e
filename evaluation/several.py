"""Several completions per question: each guideline by itself, the vote over all, pass@k and maj@k."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from datamodules.prompts import NEUTRAL
from evaluation.predictions import Prediction
from evaluation.scorers import answered_text, main_outcome, right_text
from evaluation.votes import maj_at_k, pass_at_k, vote


@dataclass(frozen=True)
class Several:
    """One model on one set of questions, all completions of a question taken together. Fractions of n.

    Attributes:
        n: questions.
        completions: per question.
        by_guideline: guideline -> accuracy of its completions, in order of first appearance.
        vote: accuracy of the majority answer; among equals the one named first. Where several guidelines and the
            neutral prompt were asked, the guidelines alone vote.
        pass_at: k -> chance that one of k is right.
        maj_at: k -> chance that the majority of k is right, ties shared.
    """

    n: int
    completions: int
    by_guideline: dict[str, float]
    vote: float
    pass_at: dict[int, float]
    maj_at: dict[int, float]


def several(predictions: Sequence[Prediction]) -> Several:
    """Score the completions of one model by the main score.

    Args:
        predictions: of one model, with the same number of completions for every question; their order within a
            question decides ties of the vote.

    Returns:
        The scores, k running over the powers of two up to the number of completions, and that number.

    Raises:
        ValueError: nothing to score, or the number of completions differs between questions.
    """
    questions: dict[tuple[str, str], list[Prediction]] = {}
    for item in predictions:
        questions.setdefault(item.key[:2], []).append(item)
    sizes = {len(items) for items in questions.values()}
    if len(sizes) != 1:
        raise ValueError(
            f"several: questions have between {min(sizes, default=0)} and {max(sizes, default=0)} completions, "
            "expected the same number for each; was the evaluation cut off?"
        )
    k_max = sizes.pop()
    ks = sorted({2**i for i in range(k_max.bit_length()) if 2**i <= k_max} | {k_max})
    n = len(questions)
    votes = 0
    passed, won = dict.fromkeys(ks, 0.0), dict.fromkeys(ks, 0.0)
    by_guideline: dict[str, list[bool]] = {}
    for items in questions.values():
        outcomes = [main_outcome(item) for item in items]
        for item, outcome in zip(items, outcomes, strict=True):
            by_guideline.setdefault(item.guideline, []).append(outcome.right)
        answers = [answered_text(item, outcome) for item, outcome in zip(items, outcomes, strict=True)]
        gold = right_text(items[0])
        votes += vote(voters(items, answers)) == gold
        counts = Counter(answers)
        for k in ks:
            passed[k] += pass_at_k(k_max, counts[gold], k)
            won[k] += maj_at_k(counts, gold, k)
    means = {guideline: math.fsum(right) / len(right) for guideline, right in by_guideline.items()}
    return Several(n, k_max, means, votes / n, {k: passed[k] / n for k in ks}, {k: won[k] / n for k in ks})


def voters(items: Sequence[Prediction], answers: Sequence[str | None]) -> list[str | None]:
    """The answers that vote: those under named guidelines if there are at least two of these, else all."""
    named = {item.guideline for item in items} - {NEUTRAL}
    return [a for item, a in zip(items, answers, strict=True) if len(named) < 2 or item.guideline in named]
