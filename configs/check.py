"""Plain values against the types and ranges of the dataclass (or constructor) that will receive them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from configs.annotations import expected, field_types, is_list, is_mapping, is_optional, mismatch_hint, required_fields
from configs.problems import Report, unknown_key
from configs.ranges import range_faults


def check(value: Any, annotation: Any, key: str, report: Report) -> Any:
    """Check one plain value against a type.

    Args:
        value: what YAML gave: None, bool, int, float, str, list or dict.
        annotation: the type; unknown types allow everything.
        key: dotted key for messages.
        report: takes what is wrong.

    Returns:
        The value as plain data in the type's own form: a whole number becomes a float where one is wanted. Text is
        never read as a number, nor a number with a fraction as a whole one.
    """
    if is_optional(annotation):
        return check_union(value, annotation, key, report)
    if dataclasses.is_dataclass(annotation) and isinstance(value, dict):
        return check_fields(annotation, value, key, report)
    if is_list(annotation):
        return check_list(value, annotation, key, report)
    if is_mapping(annotation) and isinstance(value, dict):
        inner = (get_args(annotation) or (str, Any))[1]
        return {name: check(item, inner, f"{key}.{name}", report) for name, item in value.items()}
    if not is_plain_value_of(value, annotation):
        report(key, value, f"expected {expected(annotation)}, got {value!r}", mismatch_hint(value, annotation))
    elif annotation is float:
        return float(value)
    return value


def is_plain_value_of(value: Any, annotation: Any) -> bool:
    """Whether a value is what YAML gives for a scalar type; types unknown here allow everything."""
    if get_origin(annotation) is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(annotation))
    if annotation is float:
        # NaN passes every comparison of the form `if x < 0: raise`, so it stops here
        return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
    if annotation in (int, bool, str, type(None)):
        return type(value) is annotation
    if annotation is Path:
        return isinstance(value, str)
    return not (dataclasses.is_dataclass(annotation) or is_mapping(annotation))


def check_union(value: Any, annotation: Any, key: str, report: Report) -> Any:
    """Check against every member; the member of the value's own type comes first."""
    members = sorted(get_args(annotation), key=lambda member: member is not type(value))
    for member in members:
        faults, note = recorder()
        plain = check(value, member, key, note)
        if not faults:
            return plain
    structured = [member for member in members if dataclasses.is_dataclass(member) or is_list(member)]
    if isinstance(value, dict | list) and len(structured) == 1:
        return check(value, structured[0], key, report)  # its own messages say more than "expected a mapping"
    report(key, value, f"expected {expected(annotation)}, got {value!r}", mismatch_hint(value, annotation))
    return value


def check_list(value: Any, annotation: Any, key: str, report: Report) -> Any:
    """Check a list against `list[T]`, `tuple[T, ...]` or a tuple of fixed length."""
    if not isinstance(value, list):
        hint = f"write [{value}]" if isinstance(value, str | int | float) else ""
        report(key, value, f"expected {expected(annotation)}, got {value!r}", hint)
        return value
    inner = get_args(annotation) or (Any,)
    fixed = get_origin(annotation) is tuple and Ellipsis not in inner
    if fixed and len(value) != len(inner):
        report(key, value, f"expected a list of {len(inner)}, got {len(value)} entries: {value!r}")
        return value
    item_types = inner if fixed else [inner[0]] * len(value)
    return [check(item, item_types[i], f"{key}[{i}]", report) for i, item in enumerate(value)]


def check_fields(config: type, given: Mapping[str, Any], key: str, report: Report, owner: type | None = None) -> dict:
    """Check a mapping against a dataclass: unknown and missing keys, types, then ranges by its `__post_init__`.

    Returns:
        The given fields that have the right type, as plain data; defaults are not filled in.
    """
    required, name_shown = required_fields(config), config.__qualname__.removesuffix(".Config")
    good = check_known(field_types(config, owner), required, given, key, report, name_shown)
    if required <= set(good):
        for name, message in range_faults(config, good, owner):
            report(f"{key}.{name}" if name and key else name or key, given.get(name), message)
    return good


def check_known(
    hints: Mapping[str, Any], required: set[str], given: Mapping[str, Any], key: str, report: Report, owner: str
) -> dict[str, Any]:
    """Check names and types of keyword arguments; return those that pass."""
    good = {}
    for name, value in given.items():
        dotted = f"{key}.{name}" if key else name
        if name not in hints:
            report(dotted, value, *unknown_key(name, list(hints), owner))
            continue
        faults, note = recorder(report)
        checked = check(value, hints[name], dotted, note)
        if not faults:
            good[name] = checked
    for name in sorted(required - set(given)):
        report(f"{key}.{name}" if key else name, None, f"missing; {owner} needs {expected(hints[name])} here")
    return good


def recorder(forward: Report | None = None) -> tuple[list[str], Report]:
    """A report that lists the messages it takes, and passes them on if asked to."""
    faults: list[str] = []

    def note(key: str, value: Any, message: str, suggestion: str = "") -> None:
        faults.append(message)
        if forward is not None:
            forward(key, value, message, suggestion)

    return faults, note
