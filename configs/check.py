"""Plain values against the dataclass that will hold them: names, types, ranges, and what their slots may take."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from configs.build import MissingError, construct, imported_config
from configs.classes import RefusedError, named, similar, world_of
from configs.problems import Report, unknown_key
from configs.schema import Checked, Function, Slot
from configs.words import bare, chosen, expected, fits, hint_for, kind_of, marked, members
from guards.printable import shown
from guards.ranges import rules, rules_of

KEYS = ("class_path", "init_args")
BAD = object()
"""Stands for a value that was refused."""
STAND_INS = {None: "unnamed", list: [], dict: {}}
"""Stand in for a required value that was refused, so that the rest is checked too."""


class Checker:
    """Checks values of one configuration; what is wrong goes to `report`."""

    def __init__(self, report: Report, trust: Sequence[str] = ()) -> None:
        """Start with nothing found.

        Args:
            report: takes every fault.
            trust: top-level packages besides the project's whose code may run.
        """
        self.report = report
        self.trust = tuple(trust)
        self.made: dict[tuple[type, str], Any] = {}

    def fields(self, config: type, given: Mapping[str, Any], key: str, owner: str = "") -> dict[str, Any]:
        """Check a mapping against a dataclass: unknown and missing keys, types and ranges, then its `__post_init__`.

        Returns:
            What is right, as plain data in the fields' own types; defaults are not filled in.
        """
        owner, hints = owner or config.__qualname__.removesuffix(".Config"), get_type_hints(config, include_extras=True)
        known = {field.name: field for field in dataclasses.fields(config) if field.init}
        required = [n for n, f in known.items() if f.default is f.default_factory is dataclasses.MISSING]
        good: dict[str, Any] = {}
        for name in [name for name in given if name not in known][:50]:  # a suggestion takes its time
            self.report(below(key, name), given[name], *unknown_key(name, list(known), owner))
        for name, value in ((name, value) for name, value in given.items() if name in known):
            inherited = [rule for rule in rules_of(config)[name] if rule not in rules(hints[name])]
            hint = Annotated[(hints[name], *inherited)] if inherited else hints[name]
            value = self.value(hint, on_default(value, known[name]), below(key, name))
            if value is not BAD:
                good[name] = value
        for name in [name for name in required if name not in given]:
            self.report(below(key, name), None, f"missing; {owner} needs {expected(hints[name])} here")
        bad = set(given) - set(good)
        slots = {name: {"class_path": ""} for name in required if marked(hints[name], Slot)}
        stand_ins = {n: slots.get(n, STAND_INS[kind_of(hints[n])]) for n in required if n in bad}
        return self.as_a_whole(config, {**stand_ins, **good}, key, bad) if set(required) <= set(given) else good

    def as_a_whole(self, config: type, good: dict[str, Any], key: str, bad: set[str]) -> dict[str, Any]:
        """Note what a dataclass says of values that are right one by one; return those that it has no complaint of.

        Each complaint is put to a field that it names, which is then left at its default to hear the next one.
        """
        while (message := self.complaint(config, good)) is not None:
            words = re.findall(r"\w+", message)
            cause = next((word for word in words if word in good), "")
            if not bad & set(words):  # else it clashes with what stands in for a value that was refused
                self.report(below(key, cause), good.get(cause), message)
            if not cause or cause in bad:
                break
            bad = {*bad, cause}
            del good[cause]
        return good

    def complaint(self, config: type, plain: Mapping[str, Any]) -> str | None:
        """What building the dataclass raises, or None."""
        try:
            self.made[config, repr(plain)] = construct(config, plain)
        except MissingError:
            return None  # reported where it is missing
        except Exception as error:  # a Config may raise what it likes: whatever it is, the user must read it
            return str(error) or type(error).__name__
        return None

    def value(self, hint: Any, value: Any, key: str) -> Any:
        """Check one value against an annotation; `BAD` where it was refused."""
        if slot := marked(hint, Slot):
            return self.component(value, slot, key)
        if get_origin(hint) is Annotated:
            value = self.value(bare(hint), value, key)
            return BAD if value is BAD or self.marks(hint, value, key) else value
        if len(members(hint)) > 1:
            choice = chosen(members(hint), value)
            return self.refuse(hint, value, key) if choice is None else self.value(choice, value, key)
        if hint is Any:
            return self.free(value, key)
        if kind_of(hint) is type(value):
            return self.entries(hint, value, key)
        if kind_of(hint) or not fits(value, hint):
            return self.refuse(hint, value, key)
        return float(value) if hint is float else value

    def entries(self, hint: Any, value: Any, key: str) -> Any:
        """Check a mapping or a list, and all that is in it."""
        if dataclasses.is_dataclass(hint):
            return self.fields(hint, value, key)
        inner = [item for item in get_args(hint) if item is not Ellipsis] or [Any]
        if isinstance(value, dict) and inner[-1] is Any:
            return self.free(value, key)
        if isinstance(value, dict):
            return self.all_of({n: self.value(inner[-1], item, below(key, n)) for n, item in value.items()})
        fixed = get_origin(hint) is tuple and Ellipsis not in get_args(hint)
        if fixed and len(value) != len(inner):
            self.report(key, value, f"expected a list of {len(inner)}, got {len(value)} entries: {shown(value)}")
            return BAD
        return self.all_of([self.value(inner[i if fixed else 0], v, f"{key}[{i}]") for i, v in enumerate(value)])

    def refuse(self, hint: Any, value: Any, key: str) -> Any:
        """Note a value of the wrong type."""
        self.report(key, value, f"expected {expected(hint)}, got {shown(value)}", hint_for(value, hint))
        return BAD

    def all_of(self, found: Any) -> Any:
        """A list or mapping, `BAD` if anything in it is."""
        return BAD if any(v is BAD for v in (found.values() if isinstance(found, dict) else found)) else found

    def free(self, value: Any, key: str) -> Any:
        """Options of any form: components in them are checked like all others, but for an interface."""
        if isinstance(value, dict) and "class_path" in value:
            return self.component(value, Slot(object), key)
        if isinstance(value, dict):
            return self.all_of({name: self.free(item, below(key, name)) for name, item in value.items()})
        if isinstance(value, list):
            return self.all_of([self.free(item, f"{key}[{i}]") for i, item in enumerate(value)])
        return value

    def marks(self, hint: Any, value: Any, key: str) -> bool:
        """Note what the marks beside a type say; True where anything is wrong."""
        faults: list[str] = []
        for mark in hint.__metadata__:
            if isinstance(mark, Checked):
                faults += mark.faults(value)
            elif isinstance(mark, Function):
                faults += self.function(value, mark)
            elif hasattr(mark, "fault"):
                faults += filter(None, [mark.fault(key.rpartition(".")[2], value)])
        for fault in faults:
            self.report(key, value, fault)
        return bool(faults)

    def function(self, dotted: str, mark: Function) -> list[str]:
        """What is wrong with a function's dotted path."""
        with world_of(dotted):
            try:
                found = named(dotted, self.trust)
            except RefusedError as error:
                return [str(error)]
            if not inspect.isfunction(found):
                return [f"{shown(dotted)} is no function"]
            signature = inspect.signature(found)
            returns = str(signature.return_annotation).removeprefix("collections.abc.").removeprefix("typing.")
            needs = [n for n, p in signature.parameters.items() if p.default is p.empty and p.kind not in (2, 4)]
        fitting = returns == mark.returns and not needs
        return [] if fitting else [f"expected a function that takes nothing and is annotated to return {mark.returns}"]

    def component(self, value: Any, slot: Slot, key: str) -> Any:
        """Check a mapping of `class_path` and `init_args`, and everything in it; what is right in it comes back."""
        if not isinstance(value, dict):
            self.report(key, value, f"expected a mapping of class_path and init_args, got {shown(value)}")
            return BAD
        for name in [name for name in value if name not in KEYS]:
            message, near = unknown_key(name, KEYS, "a component")
            self.report(below(key, name), value[name], message, near or f"options belong under {key}.init_args")
        class_path, init_args = value.get("class_path"), value.get("init_args") or {}
        if not isinstance(class_path, str):
            what = "missing" if class_path is None else f"expected text, got {shown(class_path)}"
            self.report(f"{key}.class_path", class_path, f"{what}; a component needs the dotted path of its class")
            return BAD
        if not isinstance(init_args, dict):
            self.report(f"{key}.init_args", init_args, f"expected a mapping, got {shown(init_args)}")
            return BAD
        with world_of(class_path):
            try:
                cls = self.fitting_class(class_path, slot)
            except RefusedError as error:
                near = similar(class_path, self.trust) if error.near else ""
                self.report(f"{key}.class_path", class_path, str(error), near)
                return {"class_path": class_path, "init_args": {}}
            config = imported_config(cls)
            if config is not None:
                good = self.fields(config, init_args, f"{key}.init_args", cls.__name__)
            else:
                good = self.arguments(cls, init_args, f"{key}.init_args")
        return {"class_path": class_path, "init_args": good}

    def fitting_class(self, class_path: str, slot: Slot) -> type:
        """The class at a path.

        Raises:
            RefusedError: it is no class, or none of the slot's.
        """
        cls = named(class_path, self.trust)
        if not isinstance(cls, type):
            raise RefusedError(f"{shown(class_path)} is a {type(cls).__name__}, not a class")
        wanted = slot.interface if isinstance(slot.interface, tuple) else (slot.interface,)
        dotted = [one if isinstance(one, str) else f"{one.__module__}.{one.__qualname__}" for one in wanted]
        takes_all = object in wanted
        if not takes_all and not any(issubclass(cls, named(one, (one.partition(".")[0],))) for one in dotted):
            raise RefusedError(f"this place takes a subclass of {' or '.join(dotted)}, and {shown(class_path)} is none")
        return cls

    def arguments(self, cls: type, given: Mapping[str, Any], key: str) -> dict[str, Any]:
        """Check the options of a class without `Config` against the names that its constructor takes."""
        taken = inspect.signature(cls).parameters.values()
        names = [p.name for p in taken if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        if all(p.kind is not p.VAR_KEYWORD for p in taken):
            for name in [name for name in given if name not in names]:
                self.report(below(key, name), given[name], *unknown_key(name, names, cls.__name__))
        return {name: self.free(value, below(key, name)) for name, value in given.items()}

    def with_defaults(self, value: Any) -> Any:
        """Checked plain data with the defaults of every component in it filled in."""
        if isinstance(value, list):
            return [self.with_defaults(item) for item in value]
        if not isinstance(value, dict) or not isinstance(value.get("class_path"), str):
            return {n: self.with_defaults(v) for n, v in value.items()} if isinstance(value, dict) else value
        class_path, init_args = value["class_path"], dict(value.get("init_args") or {})
        with world_of(class_path):
            config = imported_config(named(class_path, self.trust))
            made = self.made.get((config, repr(init_args))) if config else None
            filled = init_args if config is None else as_plain(made or construct(config, init_args))
        return {"class_path": class_path, "init_args": self.with_defaults(filled)}


def below(key: str, name: str) -> str:
    """The dotted key of an entry."""
    return f"{key}.{name}".strip(".")


def on_default(value: Any, field: dataclasses.Field) -> Any:
    """An option that is a component and names no class, laid over the component that is the option's default."""
    if not isinstance(value, dict) or "class_path" in value or "init_args" not in value:
        return value
    default = None if field.default_factory is dataclasses.MISSING else field.default_factory()
    if not isinstance(default, Mapping) or "class_path" not in default:
        return value
    init_args = value["init_args"]
    return (
        {**default, **value, "init_args": {**default.get("init_args", {}), **init_args}}
        if isinstance(init_args, dict)
        else {**default, **value}
    )


def as_plain(value: Any) -> Any:
    """Typed values as JSON can hold them: dataclasses become mappings, tuples lists, paths texts."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): as_plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
