"""An answer that was asked for as JSON: found in whatever a model wrote around it, and held against its schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
KNOWN = ("type", "enum", "properties", "required", "additionalProperties", "items", "description", "title")
"""What is read of a schema; one that says more is refused, since half a check is none."""


def structured(text: str, schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """The last JSON object of an answer that fits the schema; None where none does.

    A model may think before it, put it into a code block, or say something afterwards.

    Args:
        text: the completion; what stands in a thinking block is no answer.
        schema: as of `faults`; of an object.
    """
    said, decoder, found, place = text.rpartition("</think>")[2], json.JSONDecoder(), None, 0
    while (start := said.find("{", place)) >= 0:
        try:
            value, place = decoder.raw_decode(said, start)
        except (ValueError, RecursionError):
            place = start + 1
            continue
        if isinstance(value, dict) and not faults(value, schema):
            found = value
    return found


def faults(value: Any, schema: Mapping[str, Any], place: str = "answer") -> list[str]:
    """Where a value does not fit a schema, in words; empty if it fits.

    Args:
        value: plain data.
        schema: JSON schema of the words in `KNOWN`.
        place: of the value.

    Raises:
        ValueError: the schema says something that is not read here.
    """
    if unknown := [name for name in schema if name not in KNOWN]:
        raise ValueError(f"schema of {place}: {unknown[0]!r} is not read here; known are {', '.join(KNOWN)}")
    kind = schema.get("type")
    boolean = isinstance(value, bool)
    if kind and (not isinstance(value, KINDS[kind]) or (boolean and kind != "boolean")):
        return [f"{place} is no {kind}"]
    found = []
    if "enum" in schema and not any(value == one and type(value) is type(one) for one in schema["enum"]):
        found.append(f"{place} is none of {schema['enum']}")
    if isinstance(value, dict):
        inner = schema.get("properties", {})
        found += [f"{place} lacks {name!r}" for name in schema.get("required", ()) if name not in value]
        if schema.get("additionalProperties") is False:
            found += [f"{place} has {name!r} besides" for name in value if name not in inner]
        for name in (name for name in inner if name in value):
            found += faults(value[name], inner[name], f"{place}.{name}")
    if isinstance(value, list) and "items" in schema:
        for number, one in enumerate(value):
            found += faults(one, schema["items"], f"{place}[{number}]")
    return found
