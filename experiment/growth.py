"""How a folder may hold more than it was made with: more steps, and experts of further specialties.

Experts are trained each by itself, so that one more changes none of the others. What is made of all of them together,
such as a merge, stands for the specialties that it was made of, and is not replaced by that of others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from callbacks.experiment_callback import ExperimentCallback
from configs.build import import_class
from experiment.lineage import Lineage

RESULTS = ("merged", "evaluation")
"""Folders that hold what is made of all experts together."""


def longer(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether steps were added to an experiment that trains."""
    old, new = ((settings.get("trainer") or {}).get("max_steps") for settings in (before, now))
    return old is not None and new is not None and new > old


def held(before: Mapping[str, Any]) -> dict[str, Any]:
    """Every specialty of a folder with its settings: those that its results are of, and those that joined them."""
    return {**before["specialties"], **before.get("added", {})}


def goes_on(context: Lineage, before: Mapping[str, Any]) -> bool:
    """Whether steps or specialties are added to what a folder holds by its experiment.json."""
    after = with_added(context, before)
    regrouped = after["specialties"].keys() != before["specialties"].keys()
    return longer(before, context.resolved) or regrouped or held(after).keys() != held(before).keys()


def with_added(context: Lineage, before: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The specialties that a folder's results are of, and those beside them, once an experiment has come to it.

    Args:
        context: the experiment.
        before: content of the folder's experiment.json.
    """
    now = context.resolved["specialties"]
    first = now if makes_results(context) else before["specialties"]
    known = {**now, **held(before)}
    return {
        "specialties": {name: known[name] for name in first},
        "added": {name: one for name, one in known.items() if name not in first},
    }


def in_common(before: dict[str, Any], now: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two settings with only those specialties that both have; as they are where they share none.

    Args:
        before: of the folder, those that joined it among its specialties.
        now: asked for.
    """
    shared = before["specialties"].keys() & now["specialties"].keys()
    if not shared:
        return before, now
    kept = [{name: s for name, s in one["specialties"].items() if name in shared} for one in (before, now)]
    return before | {"specialties": kept[0]}, now | {"specialties": kept[1]}


def replaces_results(context: Lineage, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether what an experiment makes of its specialties would stand in place of what was made of others."""
    others = now["specialties"].keys() != before["specialties"].keys()
    return others and makes_results(context) and any((context.folder.path / name).exists() for name in RESULTS)


def makes_results(context: Lineage) -> bool:
    """Whether an experiment makes something of all its experts together."""
    named = [one.class_path for one in context.experiment.callbacks.values() if one is not None]
    return any(import_class(name).finish is not ExperimentCallback.finish for name in named)
