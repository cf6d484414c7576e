"""Checked plain data into the types that code wants, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from configs.annotations import field_types, is_list, is_mapping, is_optional


def construct(plain: Any, annotation: Any, owner: type | None = None) -> Any:
    """Turn checked plain data into the type: dataclasses, tuples, paths. What has no form of its own stays as it is."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if is_optional(annotation):
        fitting = (member for member in sorted(inner, key=lambda m: m is not type(plain)) if holds(plain, member))
        return construct(plain, next(fitting, Any))
    if dataclasses.is_dataclass(annotation) and isinstance(plain, dict):
        hints = field_types(annotation, owner)
        return annotation(**{name: construct(value, hints.get(name, Any)) for name, value in plain.items()})
    if annotation is Path and isinstance(plain, str):
        return Path(plain)
    if annotation is float and isinstance(plain, int) and not isinstance(plain, bool):
        return float(plain)
    if isinstance(plain, list) and is_list(annotation):
        fixed = origin is tuple and Ellipsis not in inner
        items = [construct(item, inner[i] if fixed else (inner or (Any,))[0]) for i, item in enumerate(plain)]
        return tuple(items) if tuple in (annotation, origin) else items
    if isinstance(plain, dict) and is_mapping(annotation) and inner:
        return {name: construct(value, inner[1]) for name, value in plain.items()}
    return plain


def holds(plain: Any, annotation: Any) -> bool:
    """Whether checked plain data is of one member of a union; looks no deeper than it must."""
    if dataclasses.is_dataclass(annotation):
        return isinstance(plain, dict) and set(plain) <= set(field_types(annotation))
    if get_origin(annotation) is Literal:
        return any(plain == choice and type(plain) is type(choice) for choice in get_args(annotation))
    if is_list(annotation) or is_mapping(annotation):
        return isinstance(plain, list if is_list(annotation) else dict)
    return annotation is Any or type(plain) in {Path: (str,), float: (int, float)}.get(annotation, (annotation,))


def as_plain(value: Any) -> Any:
    """Typed values as JSON can hold them: dataclasses become mappings, tuples lists, paths texts."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): as_plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [as_plain(item) for item in (sorted(value, key=str) if isinstance(value, set | frozenset) else value)]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
