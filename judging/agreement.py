"""Agreement beyond chance. Labels in, numbers out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from scipy.special import stdtrit

from evaluation.clustered import cluster_index


def cohen_kappa(
    first: Sequence[int], second: Sequence[int], clusters: Sequence[Hashable] | None = None, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Agreement of two raters beyond that of their own frequencies.

        κ = (p_o - p_e) / (1 - p_e)

    Args:
        first: (n,) 0 or 1; anything else is no rating, and its unit is left out.
        second: (n,) the same units.
        clusters: (n,) ids of what goes together; None takes every unit by itself.
        confidence: of the interval.

    Returns:
        (κ, low, high); NaN where nothing is rated by both, or both always say the same one label. The interval is NaN
        where there are fewer than two clusters, or where leaving out one of them leaves no κ, or never changes it.

    Source: Cohen 1960, Educ. Psychol. Meas. 20:37.
    Choice: the interval is that of the jackknife over clusters with Student's quantile, since the six verdicts of a
        case go together; the usual asymptotic one takes units as independent. Of full agreement the jackknife has no
        width: it says nothing then, and none is given, as an interval without width would claim certainty.
    """
    a, b = np.asarray(first), np.asarray(second)
    rated = np.isin(a, (0, 1)) & np.isin(b, (0, 1))
    if not rated.any():
        return math.nan, math.nan, math.nan
    of = cluster_index(np.arange(len(a))[rated] if clusters is None else np.asarray(clusters)[rated])
    tables = np.zeros((of.max() + 1, 4))
    np.add.at(tables, (of, 2 * a[rated] + b[rated]), 1)
    value, count = float(_kappa(tables.sum(0))), len(tables)
    without = _kappa(tables.sum(0) - tables)
    if count < 2 or not np.isfinite(without).all() or np.ptp(without) < 1e-12:
        return value, math.nan, math.nan
    spread = math.sqrt((count - 1) / count * float(((without - without.mean()) ** 2).sum()))
    half = float(stdtrit(count - 1, 0.5 + confidence / 2)) * spread
    return value, max(-1.0, value - half), min(1.0, value + half)


def _kappa(tables: np.ndarray) -> np.ndarray:
    """Kappa of (…, 4) counts of (0, 0), (0, 1), (1, 0), (1, 1); NaN where chance agreement is whole."""
    shares = tables / np.maximum(1, tables.sum(-1, keepdims=True))
    observed = shares[..., 0] + shares[..., 3]
    ones_a, ones_b = shares[..., 2] + shares[..., 3], shares[..., 1] + shares[..., 3]
    chance = ones_a * ones_b + (1 - ones_a) * (1 - ones_b)
    constant = np.isclose(chance, 1, rtol=0, atol=1e-12) | (tables.sum(-1) == 0)
    return np.where(constant, np.nan, (observed - chance) / np.where(constant, 1, 1 - chance))


def krippendorff_alpha(units: Sequence[Sequence[Hashable | None]]) -> float:
    """Agreement of any number of raters on nominal labels, missing ones allowed.

        α = 1 - D_o / D_e      D_o = Σ_u Σ_{c≠k} n_uc n_uk / (m_u - 1) / n      D_e = Σ_{c≠k} n_c n_k / (n (n - 1))

    with n_uc raters that give unit u the label c, m_u labels of a unit, and n labels of all units with m_u ≥ 2.

    Args:
        units: per unit its labels; None where a rater gives none.

    Returns:
        1 for full agreement, 0 for that of chance; NaN where no unit has two labels, or only one label occurs.

    Source: Krippendorff 2019, Content Analysis, 4th ed., section 12.3.
    """
    counts = [Counter(label for label in unit if label is not None) for unit in units]
    counts = [held for held in counts if held.total() > 1]
    totals = sum(counts, Counter())
    n = totals.total()
    expected = (n * n - sum(count * count for count in totals.values())) / (n * (n - 1)) if n else 0.0
    if not expected:
        return math.nan
    observed = sum((m * m - sum(c * c for c in held.values())) / (m - 1) for held in counts if (m := held.total())) / n
    return 1 - observed / expected
