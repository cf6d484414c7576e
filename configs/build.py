"""From a checked component to an object."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from configs.classes import RefusedError, named
from configs.schema import Component


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


def construct(config: type, plain: Mapping[str, Any]) -> Any:
    """The dataclass of plain data, by OmegaConf: nested dataclasses, tuples and paths as the fields' types say."""
    node = OmegaConf.structured(config)
    OmegaConf.set_readonly(node, False)
    for name in plain:
        if OmegaConf.get_type(node, name) is dict:  # a mapping takes the place of its default
            OmegaConf.update(node, name, {}, merge=False)
    node = OmegaConf.unsafe_merge(node, plain)  # without copying what nobody else holds
    return OmegaConf.to_object(node)


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
