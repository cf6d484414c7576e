"""Sums and means over the processes that train together; on one device everything is as it is."""

from __future__ import annotations

from collections.abc import Mapping

from torch import distributed


def rank_and_world() -> tuple[int, int]:
    """This process's number, and how many there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def mean_over_devices(metrics: Mapping[str, float], rows: int) -> dict[str, float]:
    """Metrics of every process as one, weighted by their rows; names that end in `_max` are maxima.

    Args:
        metrics: of this process; another may have other names.
        rows: that they are means over.
    """
    _, world = rank_and_world()
    if world == 1:
        return dict(metrics)
    gathered: list = [None] * world
    distributed.all_gather_object(gathered, (dict(metrics), rows))
    names = dict.fromkeys(name for found, _ in gathered for name in found)
    means = {}
    for name in names:
        known = [(found[name], weight) for found, weight in gathered if name in found]
        if name.endswith("_max"):
            means[name] = max(value for value, _ in known)
        else:
            means[name] = sum(v * weight for v, weight in known) / max(1, sum(weight for _, weight in known))
    return means
