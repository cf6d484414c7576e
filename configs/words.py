"""Types of settings: what plain data is of them, what they are called in a message, what was probably meant."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from configs.problems import did_you_mean
from configs.schema import Slot
from guards.printable import printable, shown

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}


def bare(hint: Any) -> Any:
    """A type without what `Annotated` says about it."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def kind_of(hint: Any) -> type | None:
    """Dict or list for what YAML writes as a mapping or a list; None for scalars and `Any`."""
    base = bare(hint)
    base = get_origin(base) or base
    if base in (dict, Mapping) or dataclasses.is_dataclass(base) or marked(hint, Slot):
        return dict
    return list if base in (list, tuple, Sequence) else None


def members(hint: Any) -> tuple[Any, ...]:
    """The types of a union; of another type, itself."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def marked(hint: Any, mark: type) -> Any:
    """What an annotation says of one kind; None where it says nothing."""
    return next((m for m in getattr(hint, "__metadata__", ()) if isinstance(m, mark)), None)


def chosen(choices: Sequence[Any], value: Any) -> Any:
    """The member of a union that a value is to be checked against; None where it is of none of them."""
    fitting = [choice for choice in choices if kind_of(choice) is None and fits(value, bare(choice))]
    alike = [choice for choice in choices if kind_of(choice) is type(value)]
    slots = [choice for choice in choices if marked(choice, Slot)]  # whose own message says more
    found = sorted(fitting, key=lambda choice: bare(choice) is not type(value)) or alike or slots
    return found[0] if found else None


def expected(hint: Any) -> str:
    """A type in words.

    Examples:
        >>> expected(int | None)
        'a whole number or null'
        >>> expected(Literal["k1", "k3"])
        "one of 'k1', 'k3'"
    """
    hint = bare(hint)
    inner = get_args(hint)
    if len(members(hint)) > 1:
        return " or ".join(dict.fromkeys(map(expected, members(hint))))
    if get_origin(hint) is Literal:
        return ("one of " if len(inner) > 1 else "") + ", ".join(map(repr, inner))
    if kind_of(hint) is list:
        items = [argument for argument in inner if argument is not Ellipsis]
        return f"a list of {expected(items[0])}" if len(set(items)) == 1 else "a list"
    return WORDS.get(hint, "a path" if hint is Path else "a mapping" if kind_of(hint) is dict else "a value")


def hint_for(value: Any, hint: Any) -> str:
    """What a value of the wrong type was probably meant to be."""
    kinds = [bare(member) for member in members(bare(hint))]
    if kind_of(kinds[0]) is list and isinstance(value, str | int | float):
        return f"write [{printable(value, 40)}]"
    if isinstance(value, str):
        choices = [str(c) for kind in kinds if get_origin(kind) is Literal for c in get_args(kind)]
        numeric = not {int, float}.isdisjoint(kinds) and value.strip().lstrip("+-").replace(".", "", 1).isdigit()
        return "remove the quotes if this is a number" if numeric else did_you_mean(value, choices)
    if isinstance(value, float) and int in kinds and value.is_integer():
        return f"write {shown(int(value))}"
    texts = str in kinds or any(isinstance(c, str) for kind in kinds for c in get_args(kind))
    if texts and isinstance(value, bool | int | float):
        return "put it in quotes if a text is meant; YAML reads on, off, yes, no and digits as other types"
    return ""


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is of a scalar type as it stands: no text is read as a number, no number as another."""
    if get_origin(hint) is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(hint))
    if hint is float:  # NaN passes every comparison of the form `if x < 0: raise`, so it stops here
        return type(value) in (int, float) and not math.isnan(value)
    if hint is Path:
        return isinstance(value, str)
    return type(value) is hint if hint in WORDS else kind_of(hint) is None
