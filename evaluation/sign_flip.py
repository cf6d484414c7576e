"""The exact test whether paired differences favour one side, patients flipped as wholes."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

from evaluation.clustered import cluster_index
from evaluation.statistics import mcnemar_exact

ROUNDING = 1e-12
"""What an inverse transform of chances that sum to 1 leaves in doubt; no p-value is claimed below it."""
FINEST = 2**18
"""Points of a mean over specialties, about; their shares are rounded to whole numbers of these."""


def sign_flip_p(differences: Sequence[float], clusters: Sequence[Hashable] | None = None) -> float:
    """Test whether paired differences favour one side: exact two-sided sign-flip test of whole clusters.

        T = Σ_g ε_g s_g,   ε_g = ±1 with equal chance,   s_g = Σ_{i in g} d_i        p = P(|T| ≥ |Σ_g s_g|)

    Where no |s_g| exceeds 1, as with one question per cluster, this is McNemar's exact test and computed as that. Else
    the distribution of T is not sampled: its characteristic function Π_g cos(θ s_g) is inverted on a grid as fine as T
    itself.

    Args:
        differences: (n,) whole numbers, here right (1) minus right (0).
        clusters: (n,) ids of what is flipped together, such as patients; None flips every item by itself.

    Returns:
        p-value. McNemar's is exact; others are exact to about 1e-12 in absolute terms, and what the inversion puts
        below that is given as 1e-12, or as the smallest p there can be, 2^(1 - G), if that is larger.

    Raises:
        ValueError: lengths differ, or a difference is not a whole number.

    Source: Fisher 1935, The Design of Experiments, section 21; whole clusters keep their sign together because the
        answers about one patient are not independent.
    """
    array = np.asarray(differences, dtype=np.float64)
    groups = range(len(array)) if clusters is None else clusters
    if len(array) != len(groups) or not (array == np.rint(array)).all():
        raise ValueError(
            f"sign_flip_p: got {len(array)} differences and {len(groups)} clusters; expected as many of both, and "
            "whole numbers"
        )
    return _flipped(np.bincount(cluster_index(groups), weights=array) if len(array) else np.zeros(0))


def macro_sign_flip_p(parts: Sequence[tuple[Sequence[float], Sequence[Hashable]]]) -> float:
    """The same test of the mean over specialties, in which each specialty counts once.

        T = Σ_k Σ_g ε_g s_kg / n_k

    Args:
        parts: per specialty its differences and clusters, as of `sign_flip_p`; no cluster is in two.

    Returns:
        p-value, as of `sign_flip_p`: exact, whatever the number of specialties and patients.

    Raises:
        ValueError: there is no specialty, or one is empty.

    Choice: the shares 1 / n_k are taken as whole numbers in the same proportion. Where the least common multiple of the
        n_k is too large for that they are rounded, by at most 5 %, and the test stays exact: any weights may be given
        beforehand.
    """
    sizes = [len(differences) for differences, _ in parts]
    if not sizes or min(sizes) == 0:
        raise ValueError(f"macro_sign_flip_p: got specialties of {sizes} questions, expected at least one of each")
    unit = math.lcm(*sizes)
    if unit > FINEST:
        unit = max(sizes) * max(10, FINEST // max(sizes))
    sums = [
        round(unit / size) * np.bincount(cluster_index(clusters), weights=np.asarray(differences, dtype=np.float64))
        for size, (differences, clusters) in zip(sizes, parts, strict=True)
    ]
    together = np.concatenate(sums)
    return _flipped(together / max(1, int(np.gcd.reduce(together.astype(np.int64)))))


def _flipped(sums: np.ndarray) -> float:
    """The p-value of `sign_flip_p` from the sums of the clusters."""
    sizes, counts = np.unique(np.abs(sums).astype(np.int64), return_counts=True)
    total = int(sizes @ counts)
    if total == 0:
        return 1.0
    if sizes.max() == 1:
        return mcnemar_exact(int((sums < 0).sum()), int((sums > 0).sum()))
    observed = abs(int(sums.sum()))
    # T has the parity of its maximum, so that halving its range makes every whole number a possible value.
    points = total + 1
    angles = np.pi * np.arange(points) / points
    logs = np.zeros(points)
    signs = np.ones(points)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        cosine = np.cos(angles * size)
        with np.errstate(divide="ignore"):
            logs += count * np.log(np.abs(cosine))
        signs *= np.where(cosine < 0, (-1.0) ** count, 1.0)
    # P((T + total) / 2 = j) by the inverse transform of E exp(i θ (T + total)), θ = 2π k / points / 2
    phases = np.exp(1j * angles * total)
    chances = np.fft.fft(signs * np.exp(logs) * phases).real / points
    values = 2 * np.arange(points) - total
    smallest = 2.0 ** (1 - np.count_nonzero(sums))
    return float(min(1.0, max(chances[np.abs(values) >= observed].sum(), smallest, ROUNDING)))
