"""The ranges of options: every complaint of a dataclass, not only its first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from configs.annotations import field_types, required_fields
from configs.construct import construct


def range_faults(
    config: type,
    good: Mapping[str, Any],
    owner: type | None = None,
    stand_ins: Mapping[str, Any] = MappingProxyType({}),
) -> list[tuple[str, str]]:
    """Every complaint of a dataclass's `__post_init__`, each with the field that causes it.

    `__post_init__` stops at its first complaint. The field whose return to its default changes that complaint is its
    cause; it is then left at its default to hear the next one.

    Args:
        config: the dataclass.
        good: fields of the right type, every required one among them.
        owner: the class that the dataclass is nested in, if that was imported.
        stand_ins: harmless values of required fields, which have no default to return to.

    Returns:
        (field, message) pairs; the field is empty where no single one is at fault.

    Raises:
        NameError: `__post_init__` uses a name that reading the source did not provide.
    """
    found: list[tuple[str, str]] = []
    left, fixed = dict(good), required_fields(config) - set(stand_ins)
    while (message := complaint(config, left, owner)) is not None:
        causes = [
            n for n in left if n not in fixed and complaint(config, without(left, n, stand_ins), owner) != message
        ]
        words = re.findall(r"\w+", message)
        named = sorted(set(words) & set(causes or field_types(config, owner)), key=words.index)
        cause = (named or causes or [""])[0]
        left = without(left, cause, stand_ins)
        others = complaint(config, left, owner)
        if others is not None and others != message:  # a Config that says everything at once: keep this field's part
            message = message.replace(others, "").strip(" ;,\n")
        if not any(name in words for name, _ in found):  # not a clash with a default put in place here
            found.append((cause, message))
        if cause not in causes:
            break
    return found


def without(given: Mapping[str, Any], name: str, stand_ins: Mapping[str, Any]) -> dict[str, Any]:
    """The fields with one of them back at its default."""
    return {key: value for key, value in given.items() if key != name} | {
        key: value for key, value in stand_ins.items() if key == name
    }


def complaint(config: type, plain: Mapping[str, Any], owner: type | None = None) -> str | None:
    """What building the dataclass raises, or None."""
    try:
        construct(dict(plain), config, owner)
    except NameError:
        raise
    except Exception as error:  # a Config may raise what it likes: whatever it is, the user must read it
        return str(error) or type(error).__name__
    return None
