"""From a merged tree to an `Experiment`: every section checked, every fault noted with the place of its key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from configs.annotations import field_types
from configs.check import check, check_fields
from configs.components import check_component, with_defaults
from configs.construct import as_plain, construct
from configs.problems import Problem, Report, did_you_mean, unknown_key
from configs.ranges import range_faults
from configs.schema import Component, Experiment, Fit
from configs.trainer import check_trainer
from configs.tree import Branch, place_of, plain

MANIFEST = "manifest.json"
UNNAMED = "unnamed"
"""Stands in for a name that is wrong, so that the rest is checked too."""
SECTIONS = ("model", "module", "specialties", "data", "callbacks", "trainer", "fit")


def is_adapter(folder: Path) -> bool:
    """Whether a folder, or the folder `adapter` in it, has an adapter's manifest."""
    return any((folder / inner / MANIFEST).is_file() for inner in ("", "adapter"))


class Resolver:
    """Checks one merged tree; what is wrong goes to `problems`."""

    def __init__(self, tree: Branch, problems: list[Problem]) -> None:
        self.tree = tree
        self.problems = problems

    def report(self, key: str, value: Any, message: str, suggestion: str = "") -> None:
        """Note a fault once, at the place where its key was written."""
        problem = Problem(place_of(self.tree, key.partition("[")[0]), key, value, message, suggestion)
        if problem not in self.problems:
            self.problems.append(problem)

    def experiment(self) -> Experiment | None:
        """The experiment, or None when something is wrong with it."""
        before = len(self.problems)
        given = plain(self.tree)
        types = field_types(Experiment)
        for key in [key for key in given if key not in types]:
            message, suggestion = unknown_key(key, list(types), "an experiment")
            self.report(key, given.pop(key), message, suggestion)
        values = self.scalars(given, types)
        sections = {
            "model": self.component(given, "model"),
            "module": self.component(given, "module") if given.get("module") is not None else None,
            "specialties": self.specialties(given),
            "data": self.section(given, "data"),
            "callbacks": self.components(given, "callbacks"),
            "trainer": self.trainer(given),
            "fit": self.fit(given),
        }
        self.adapters(values.get("adapters", []))
        for name, message in range_faults(Experiment, {**sections, **values}, stand_ins={"name": UNNAMED}):
            self.report(name, given.get(name), message)
        return Experiment(**sections, **values) if len(self.problems) == before else None

    def scalars(self, given: Mapping[str, Any], types: Mapping[str, Any]) -> dict[str, Any]:
        """The fields that are neither components nor free-form sections."""
        good: dict[str, Any] = {"name": UNNAMED}
        for name in [field.name for field in fields(Experiment) if field.name in given and field.name not in SECTIONS]:
            before = len(self.problems)
            value = check(given[name], types[name], name, self.report)
            if len(self.problems) == before:
                good[name] = value
        return good

    def adapters(self, folders: Sequence[str]) -> None:
        """Note every folder that holds no adapter, before anything is computed for the others."""
        for index, name in enumerate(folders):
            if not is_adapter(Path(name)):
                beside = [str(path) for path in sorted(Path(name).parent.glob("*")) if is_adapter(path)]
                rejected = Path(name) / "rejected"
                hint = f"the gates rejected this merge; did you mean {str(rejected)!r}?" if is_adapter(rejected) else ""
                message = f"{name!r} is no adapter folder: neither it nor an `adapter` in it holds {MANIFEST}"
                self.report(f"adapters[{index}]", name, message, hint or did_you_mean(name, beside))

    def section(self, given: Mapping[str, Any], key: str) -> dict[str, Any]:
        """A mapping of the top level; an empty one (`callbacks:`) counts as no entries."""
        value = given.get(key)
        if value is not None and not isinstance(value, dict):
            self.report(key, value, f"expected a mapping, got {value!r}")
        return dict(value) if isinstance(value, dict) else {}

    def component(self, given: Mapping[str, Any], key: str) -> Component:
        """A component that must be there; a placeholder (and a problem) when it is not."""
        if key not in given:
            self.report(key, None, "missing; an experiment needs a class_path and init_args here")
            return Component("")
        return check_component(given[key], key, self.report) or Component("")

    def components(self, given: Mapping[str, Any], key: str) -> dict[str, Component]:
        """Named components; null removes one."""
        entries = {name: value for name, value in self.section(given, key).items() if value is not None}
        return {
            name: check_component(value, f"{key}.{name}", self.report) or Component("")
            for name, value in entries.items()
        }

    def specialties(self, given: Mapping[str, Any]) -> dict[str, Component]:
        """One DataModule per specialty, the shared options of `data` under its own."""
        shared, found = self.section(given, "data"), {}
        for name, value in self.section(given, "specialties").items():
            if value is None:
                continue
            own = value.get("init_args") if isinstance(value, dict) else None
            if isinstance(value, dict) and (own is None or isinstance(own, dict)):
                value = {**value, "init_args": {**shared, **(own or {})}}
            report = self.shared_report(name, set(shared) - set(own or {}))
            found[name] = check_component(value, f"specialties.{name}", report) or Component("")
        return found

    def shared_report(self, specialty: str, shared: set[str]) -> Report:
        """A report that names `data` as the place of an option that came from there."""
        prefix = f"specialties.{specialty}.init_args."

        def note(key: str, value: Any, message: str, suggestion: str = "") -> None:
            option = key.removeprefix(prefix)
            if key.startswith(prefix) and option.partition(".")[0].partition("[")[0] in shared:
                key, message = f"data.{option}", f"{message} (for specialty {specialty})"
            self.report(key, value, message, suggestion)

        return note

    def trainer(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What goes to Lightning's Trainer."""
        training = given.get("module") is not None
        return check_trainer(self.section(given, "trainer"), self.report, training=training)

    def fit(self, given: Mapping[str, Any]) -> Fit:
        """Validation and checkpoints; what is wrong is left at its default."""
        section = self.section(given, "fit")
        good = check_fields(Fit, section, "fit", self.report)
        return construct(good, Fit) if not range_faults(Fit, good) else Fit()


def resolved(experiment: Experiment) -> dict[str, Any]:
    """The experiment as plain data with every default filled in: what `config.resolved.json` holds."""
    whole = as_plain(experiment)
    for key in ("model", "module"):
        if (component := getattr(experiment, key)) is not None:
            whole[key] = with_defaults(component)
    for key in ("specialties", "callbacks"):
        whole[key] = {name: with_defaults(component) for name, component in getattr(experiment, key).items()}
    return whole


def completed(before: Mapping[str, Any]) -> dict[str, Any]:
    """What an earlier version resolved, with settings that did not exist then at their defaults.

    A component that today's class does not take as it stands is left as it was, and so counts as changed.
    """
    absent = {f.name: f.default for f in fields(Experiment) if f.default is not MISSING and f.name not in before}
    whole = absent | dict(before)
    whole["fit"] = as_plain(Fit()) | (whole.get("fit") or {})
    for key in ("model", "module"):
        whole[key] = refilled(whole.get(key))
    for key in ("specialties", "callbacks"):
        whole[key] = {name: refilled(component) for name, component in (whole.get(key) or {}).items()}
    return whole


def refilled(component: Any) -> Any:
    """A resolved component with today's defaults where it says nothing."""
    try:
        return with_defaults(Component(component["class_path"], dict(component["init_args"])))
    except (ValueError, TypeError, LookupError, AttributeError):
        return component


def origin_of(key: str, tree: Branch, defaulted_by: str) -> str:
    """Where a resolved value comes from: the place it was written, `data` for shared options, else its default."""
    node: Any = tree
    for part in key.split("."):
        if not isinstance(node, Branch) or part not in node.children:
            return f"default of {defaulted_by}"
        node = node.children[part]
    return node.place


def origins(whole: Mapping[str, Any], tree: Branch) -> dict[str, str]:
    """Dotted key of every resolved value -> "file:line", "command line" or "default of X"."""
    found = {}
    for key in flattened(whole):
        parts = key.split(".")
        start = 2 if parts[0] in ("specialties", "callbacks") else 1 if parts[0] in ("model", "module") else 0
        owner = whole
        for part in parts[:start]:
            owner = owner[part]
        name = owner["class_path"].rpartition(".")[2] if start and len(parts) > start else "Experiment"
        found[key] = origin_of(key, tree, name)
        option = parts[start + 1 :]
        if parts[0] == "specialties" and found[key].startswith("default of") and option:
            found[key] = origin_of(".".join(["data", *option]), tree, name)
    return found


def flattened(whole: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value; empty mappings and lists are values."""
    found = {}
    for name, value in whole.items():
        key = f"{prefix}.{name}" if prefix else name
        found.update(flattened(value, key) if isinstance(value, Mapping) and value else {key: value})
    return found
