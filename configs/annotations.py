"""The types that options may have: what they are called in a message and how to ask for them."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from configs.problems import did_you_mean

LISTS = (list, tuple, Sequence)
MAPPINGS = (dict, Mapping)
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}


def is_list(annotation: Any) -> bool:
    """True for list, tuple and Sequence, with or without item types."""
    return annotation in LISTS or get_origin(annotation) in LISTS


def is_mapping(annotation: Any) -> bool:
    """True for dict and Mapping, with or without item types."""
    return annotation in MAPPINGS or get_origin(annotation) in MAPPINGS


def is_optional(annotation: Any) -> bool:
    """True for a union type, `X | Y` or `Union[X, Y]`."""
    return get_origin(annotation) in (Union, types.UnionType)


def field_types(config: type, owner: type | None = None) -> dict[str, Any]:
    """Field name -> type of a dataclass; `owner` is the class it is nested in, whose names its annotations may use."""
    hints = get_type_hints(config, localns=dict(vars(owner)) if owner else None)
    return {field.name: hints[field.name] for field in dataclasses.fields(config) if field.init}


def required_fields(config: type) -> set[str]:
    """Fields of a dataclass without a default."""
    missing = dataclasses.MISSING
    fields = dataclasses.fields(config)
    return {f.name for f in fields if f.init and f.default is missing and f.default_factory is missing}


def expected(annotation: Any) -> str:
    """A type in words.

    Examples:
        >>> expected(int | None)
        'a whole number or null'
        >>> expected(Literal["k1", "k3"])
        "one of 'k1', 'k3'"
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if is_optional(annotation):
        return " or ".join(dict.fromkeys(map(expected, inner)))
    if origin is Literal:
        return ("one of " if len(inner) > 1 else "") + ", ".join(map(repr, inner))
    if is_list(annotation):
        items = [argument for argument in inner if argument is not Ellipsis]
        return f"a list of {expected(items[0])}" if len(set(items)) == 1 else "a list"
    if is_mapping(annotation) or dataclasses.is_dataclass(annotation):
        return "a mapping"
    return WORDS.get(annotation, "a path" if annotation is Path else "a value")


def mismatch_hint(value: Any, annotation: Any) -> str:
    """What a value of the wrong type was probably meant to be."""
    members = get_args(annotation) if is_optional(annotation) else (annotation,)
    if isinstance(value, str):
        choices = [str(c) for member in members if get_origin(member) is Literal for c in get_args(member)]
        numeric = not {int, float}.isdisjoint(members) and value.strip().lstrip("+-").replace(".", "", 1).isdigit()
        return "remove the quotes if this is a number" if numeric else did_you_mean(value, choices)
    if isinstance(value, float) and int in members and value.is_integer():
        return f"write {int(value)}"
    texts = str in members or any(isinstance(c, str) for member in members for c in get_args(member))
    if texts and isinstance(value, bool | int | float):
        return "put it in quotes if a text is meant; YAML reads on, off, yes, no and digits as other types"
    return ""
