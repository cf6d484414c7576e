"""What `data` shares among specialties: each takes the options that its set has; the others are named once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from configs.build import imported_config
from configs.classes import RefusedError, named, world_of


def with_data(given: dict[str, Any], notes: list[str] | None = None) -> dict[str, Any]:
    """An experiment's values without the entries that null takes away, and with the options of `data` in each set.

    An option that one of the sets has goes to those that have it; one that none has goes to all, to be refused.

    Args:
        given: what files and command line say.
        notes: takes a line about the options that some sets do not have.
    """
    given = dict(given)
    for key in ("specialties", "callbacks"):
        if isinstance(given.get(key), dict):
            given[key] = {name: value for name, value in given[key].items() if value is not None}
    shared, sets = given.get("data"), given.get("specialties")
    if not isinstance(shared, dict) or not isinstance(sets, dict):
        return given
    taken = {name: options_of(one, trusted(given)) for name, one in sets.items()}
    known = {key for key in shared if any(own is None or key in own for own in taken.values())}
    left: dict[str, list[str]] = {}
    for name, one in sets.items():
        own = one.get("init_args") if isinstance(one, dict) else None
        if isinstance(one, dict) and isinstance(own, dict | None):
            fit = {k: v for k, v in shared.items() if k not in known or taken[name] is None or k in taken[name]}
            given["specialties"][name] = {**one, "init_args": {**fit, **(own or {})}}
            for key in shared.keys() - fit.keys():
                left.setdefault(name, []).append(key)
    if left and notes is not None:
        told = "; ".join(f"{name} has no {', '.join(sorted(keys))}" for name, keys in left.items())
        notes.append(f"settings under data go to the sets that have them: {told}")
    return given


def options_of(component: Any, trust: list[str]) -> frozenset[str] | None:
    """Names of the options that a component's class has; None where it takes any, or where nobody knows."""
    class_path = component.get("class_path") if isinstance(component, dict) else None
    if not isinstance(class_path, str):
        return None
    with world_of(class_path):
        try:
            config = imported_config(named(class_path, trust))
        except RefusedError:  # is told where the component is checked
            return None
        return None if config is None else frozenset(field.name for field in fields(config) if field.init)


def trusted(given: Mapping[str, Any]) -> list[str]:
    """The packages under `trust`, as far as they are names; whatever else stands there is refused with all else."""
    names = given.get("trust")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
