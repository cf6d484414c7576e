"""The release's score: the share of right verdicts per organ and dimension, where what is missing is wrong.

Source: Med-RewardBench, arXiv:2508.21430, released code at 9b9d806.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from judging.cases import DIMENSIONS
from judging.verdicts import released


def organ_accuracy(truths: Mapping[str, Mapping[str, str]], replies: Iterable[tuple[str, str]]) -> dict[str, float]:
    """One organ's row of the release's table.

        accuracy_d = #{ground-truth rows whose verdict on d is read and right} / #{ground-truth rows}

    Args:
        truths: question id -> dimension -> side; the denominator.
        replies: (question id, reply in the given order) in the order of the file; of several that can be read for one
            id the last counts, and ids without ground truth do not count.

    Returns:
        Dimension -> share, rounded to 4 digits; 0 where there is no ground truth.
    """
    readings = {name: reading.verdicts for name, reply in replies if (reading := released(reply)).verdicts}
    found = {}
    for dimension in DIMENSIONS:
        right = sum(readings.get(name, {}).get(dimension) == truth[dimension] for name, truth in truths.items())
        found[dimension] = round(right / len(truths), 4) if truths else 0.0
    return found
