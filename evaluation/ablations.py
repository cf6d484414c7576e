"""What becomes of a model's answers when the question is put in another way. Pure functions on scored answers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation.answers import LETTERS
from evaluation.paired import paired_difference
from evaluation.predictions import Prediction
from evaluation.scorers import answered_text, main_outcome


@dataclass(frozen=True)
class Ablation:
    """One variant beside the main way, on the same questions.

    Attributes:
        n: completions in both.
        accuracy_main: of the main way, on these questions alone.
        accuracy: of the variant.
        difference: variant minus main way; near 0 without the picture, the model does not look at it.
        low: lower end of its 95 % interval, by patient.
        high: upper end.
        detectable: smallest true difference that these questions find with 80 %.
        p: of the exact sign-flip test by patient.
        same: share of completions that answer the same in both; what cannot be read answers nothing.
    """

    n: int
    accuracy_main: float
    accuracy: float
    difference: float
    low: float
    high: float
    detectable: float
    p: float
    same: float


def ablation(main: Sequence[Prediction], variant: Sequence[Prediction]) -> Ablation:
    """Compare the answers of one model to one variant with its answers to the main way.

    Args:
        main: one model, one specialty.
        variant: the same, on all or some of the questions.

    Raises:
        ValueError: the variant has answers without a partner, or none at all.
    """
    pairs = _paired(main, [variant])
    if len(pairs) != len(variant) or not pairs:
        raise ValueError(
            f"ablation: {len(variant)} answers of the variant, of which {len(pairs)} have a partner in the main way; "
            "was the file cut off?"
        )
    outcomes = [[main_outcome(item) for item in pair] for pair in pairs]
    right = [[pair[side].right for pair in outcomes] for side in (0, 1)]
    texts = [[answered_text(i, o) for i, o in zip(*both, strict=True)] for both in zip(pairs, outcomes, strict=True)]
    found = paired_difference(*right, [(item.specialty, item.patient_id) for item, _ in pairs])
    same = sum(a is not None and a == b for a, b in texts)
    n = len(pairs)
    means = [sum(side) / n for side in right]
    return Ablation(n, *means, found.difference, found.low, found.high, found.detectable, found.p, same / n)


@dataclass(frozen=True)
class Consistency:
    """The same questions in several orders or wordings, the main way among them. Fractions of n.

    Attributes:
        n: completions that there are in every way.
        accuracies: of each way, the main one first.
        changed: share whose answered text is not the same in all; nothing read counts as an answer of its own.
        always: share that is right in all (over orders of the options: circular accuracy).
        letters: letter -> (times answered, times right answer) over all ways.
    """

    n: int
    accuracies: tuple[float, ...]
    changed: float
    always: float
    letters: Mapping[str, tuple[int, int]]


def consistency(main: Sequence[Prediction], others: Sequence[Sequence[Prediction]]) -> Consistency:
    """Compare the answers of one model over several ways of one kind.

    Args:
        main: one model, one specialty.
        others: the same, one sequence per further way; questions that lack in any are left out.

    Returns:
        The shares; NaN where no question was put in every way.
    """
    groups = _paired(main, others)
    n = len(groups)
    if not n:
        return Consistency(0, (math.nan,) * (1 + len(others)), math.nan, math.nan, {})
    outcomes = [[main_outcome(item) for item in group] for group in groups]
    right = [[outcome.right for outcome in group] for group in outcomes]
    texts = [[answered_text(i, o) for i, o in zip(*both, strict=True)] for both in zip(groups, outcomes, strict=True)]
    said = Counter(outcome.answered for group in outcomes for outcome in group)
    gold = Counter(item.answer_letter for group in groups for item in group)
    shown = LETTERS[: max(len(item.options) for group in groups for item in group)]
    return Consistency(
        n,
        tuple(sum(way) / n for way in zip(*right, strict=True)),
        sum(len(set(group)) > 1 for group in texts) / n,
        sum(map(all, right)) / n,
        {letter: (said[letter], gold[letter]) for letter in shown},
    )


def _paired(main: Sequence[Prediction], others: Sequence[Sequence[Prediction]]) -> list[tuple[Prediction, ...]]:
    """Completions of one question, guideline and sample in every way, in the order of the main one."""
    keyed = [{item.key: item for item in items} for items in others]
    return [(item, *(way[item.key] for way in keyed)) for item in main if all(item.key in way for way in keyed)]
