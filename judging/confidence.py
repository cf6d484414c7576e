"""How sure a judge says it is, dimension by dimension: in the reply's `reason`, an object of probabilities.

{"accuracy": "A", …, "reason": {"accuracy": 0.93, …}}        of the answer that is shown first
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np

from judging.cases import DIMENSIONS, SIDES
from judging.sheet import Judged, Sheet
from judging.verdicts import strict_object


def sure_reply(first: Mapping[str, float]) -> str:
    """A reply of `pair` mode from the probabilities that the answer shown first is the better one.

    Args:
        first: dimension -> probability; dimensions that are absent count as even. Even ones go to the first.
    """
    held = {name: first.get(name, 0.5) for name in DIMENSIONS}
    return json.dumps({**{name: SIDES[value < 0.5] for name, value in held.items()}, "reason": held})


def stated(reply: str) -> dict[str, float]:
    """Dimension -> the stated probability that the first answer is better; empty where the reply states none."""
    reason = (strict_object(reply) or {}).get("reason")
    if not isinstance(reason, dict):
        return {}
    numbers = {name: reason.get(name) for name in DIMENSIONS}
    return {
        name: float(number)
        for name, number in numbers.items()
        if isinstance(number, int | float) and not isinstance(number, bool) and 0 <= number <= 1
    }


def stated_and_true(sheet: Sheet, dimension: str = "") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(stated probability of A, whether A is better, cluster) of verdicts in the order given.

    Args:
        sheet: of `pair` mode.
        dimension: of the six; empty takes all.
    """
    rows = [row for case in sheet.cases for row in stated_rows(case) if dimension in ("", row[0])]
    probabilities, truths, clusters = zip(*(row[1:] for row in rows), strict=True) if rows else ((), (), ())
    return np.array(probabilities), np.array(truths, dtype=np.int64), np.array(clusters)


def stated_rows(case: Judged) -> list[tuple[str, float, int, str]]:
    """(dimension, probability of A, whether A is better, cluster) of a case."""
    held, truth = stated(case.reply), case.about.truth
    return [
        (name, held[name], int(truth[name] == SIDES[0]), case.about.cluster)
        for name in DIMENSIONS
        if name in held and name in truth
    ]


def log_odds(probability: np.ndarray) -> np.ndarray:
    """Log-odds of probabilities; certain ones are bounded as double precision bounds them."""
    least = math.ulp(1.0)
    held = np.clip(probability, least, 1 - least)
    return np.log(held) - np.log1p(-held)
