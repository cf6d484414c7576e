"""From a checked component to an object."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from configs.classes import RefusedError, named
from configs.schema import Component
from configs.words import bare, chosen, members


class MissingError(ValueError):
    """A value that has no default is not there."""


def import_class(class_path: str, trust: Sequence[str] | None = None) -> type:
    """Import the class that a dotted path names.

    Args:
        class_path: module and class.
        trust: packages besides the project's; None where the caller's own code chose the class.

    Raises:
        ImportError: the path leads nowhere, or to what is no class.
    """
    try:
        found = named(class_path, (class_path.partition(".")[0],) if trust is None else trust)
    except RefusedError as error:
        raise ImportError(f"{class_path!r}: {error}; is the class path in the YAML right?") from error
    if not isinstance(found, type):
        raise ImportError(f"{class_path!r} is a {type(found).__name__}, not a class")
    return found


def import_function(dotted: str) -> Callable[..., Any]:
    """The function at a dotted path that was checked before, or that the caller's own code chose.

    Raises:
        ImportError: the path leads nowhere.
    """
    try:
        return named(dotted, (dotted.partition(".")[0],))
    except RefusedError as error:
        raise ImportError(f"{dotted!r}: {error}") from error


def imported_config(cls: type) -> type | None:
    """The nested dataclass `Config` of a class, its own or inherited; None when it has none."""
    config = getattr(cls, "Config", None)
    return config if isinstance(config, type) and dataclasses.is_dataclass(config) else None


def construct(config: type, plain: Mapping[str, Any], default: Any = None) -> Any:
    """The dataclass of checked plain data: nested dataclasses, tuples, paths and floats as the fields' types say.

    Args:
        config: the dataclass.
        plain: values by field; nothing in it is shared with what is built.
        default: an instance whose values stand where `plain` has none; None takes the fields' own defaults.

    Raises:
        MissingError: a field that has no default is in neither.
    """
    required = [f.name for f in dataclasses.fields(config) if f.default is f.default_factory is dataclasses.MISSING]
    if default is None and (missing := [name for name in required if name not in plain]):
        raise MissingError(f"{config.__qualname__} needs {', '.join(missing)}")
    hints = get_type_hints(config, include_extras=True)
    made = {name: typed(hints[name], value, default_of(config, name, default)) for name, value in plain.items()}
    return config(**made) if default is None else dataclasses.replace(default, **made)


def default_of(config: type, name: str, default: Any) -> Any:
    """The value of a field where none is given: a nested dataclass is laid over it. None where there is none."""
    if default is not None:
        return getattr(default, name)
    field = {field.name: field for field in dataclasses.fields(config)}[name]
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def typed(hint: Any, value: Any, default: Any = None) -> Any:
    """Plain data in the type of an annotation; what needs no type of its own is copied."""
    if len(members(bare(hint))) > 1:
        choice = chosen(members(bare(hint)), value)
        return deepcopy(value) if choice is None else typed(choice, value, default)
    hint = bare(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return construct(hint, value, default if isinstance(default, hint) else None)
    inner = [item for item in get_args(hint) if item is not Ellipsis] or [Any]
    if isinstance(value, Mapping):
        return {name: typed(inner[-1], item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        fixed = get_origin(hint) is tuple and Ellipsis not in get_args(hint)
        items = [typed(inner[i if fixed else 0], item) for i, item in enumerate(value)]
        return tuple(items) if tuple in (hint, get_origin(hint)) else items
    if hint in (Path, float) and value is not None:
        return hint(value)
    return deepcopy(value)


def build(component: Component, **runtime: Any) -> Any:
    """Build `Class(Config(**init_args), **runtime)`, or `Class(**init_args, **runtime)` where there is no `Config`.

    Args:
        component: checked by `configs.load.load`; lists become tuples and mappings nested dataclasses where the
            `Config` says so.
        runtime: what only the running program knows (seed, folders), passed on as keywords.
    """
    cls = import_class(component.class_path)
    config = config_of(component)
    return cls(**component.init_args, **runtime) if config is None else cls(config, **runtime)


def config_of(component: Component) -> Any:
    """The `Config` of a component's class with its options; None where the class has none."""
    config = imported_config(import_class(component.class_path))
    return None if config is None else construct(config, component.init_args)
