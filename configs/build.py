"""From a class path to an object."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

from configs.construct import construct
from configs.schema import Component


def import_class(class_path: str) -> type:
    """Import the class that a dotted path names.

    Raises:
        ImportError: the module or the class does not exist, or the module fails to import.
        TypeError: the path names something that is not a class.
    """
    module_path, _, name = class_path.rpartition(".")
    if not module_path or not all(part.isidentifier() for part in class_path.split(".")):
        raise ImportError(f"{class_path!r} is not of the form package.module.Class")
    module = importlib.import_module(module_path)
    try:
        found = getattr(module, name)
    except AttributeError as error:
        raise ImportError(f"module {module_path!r} has no {name!r}; is the class path in the YAML right?") from error
    if not isinstance(found, type):
        raise TypeError(f"{class_path} is a {type(found).__name__}, not a class")
    return found


def imported_config(cls: type) -> type | None:
    """The nested dataclass `Config` of an imported class, its own or inherited; None when it has none."""
    config = getattr(cls, "Config", None)
    return config if isinstance(config, type) and dataclasses.is_dataclass(config) else None


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
    cls = import_class(component.class_path)
    config = imported_config(cls)
    return None if config is None else construct(dict(component.init_args), config, cls)
