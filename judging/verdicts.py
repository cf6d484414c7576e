"""What a judge's reply says: as the release reads it, and strictly.

The release's reading takes what it can get. It has defects that its figures contain, kept here on purpose:

- the English article "a" is a stand-alone letter, so that "a close call" is six verdicts for A;
- a value is read by its first letter where the JSON does not hold: "Assistant B" counts as A, "both" as B;
- one letter anywhere fills all six dimensions.

Source: Med-RewardBench, arXiv:2508.21430, released code at 9b9d806.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from datamodules.json_rows import load_json
from evaluation.thinking import after_thinking
from judging.cases import DIMENSIONS, SIDES
from judging.messages import HIGHEST, LOWEST

Rule = Literal["json", "regex", "brackets", "lone letter", "dropped"]
RULES: tuple[Rule, ...] = ("json", "regex", "brackets", "lone letter", "dropped")
BY_NAME = {name: re.compile(rf'{name}"?\s*:\s*"?([AB])', re.IGNORECASE) for name in DIMENSIONS}
BRACKETS = re.compile(r"\[\[([AB])\]\]", re.IGNORECASE)
ALONE = re.compile(r"\b[AB]\b", re.IGNORECASE)
FENCE = re.compile(r"\A```(?:json)?\s*\n(.*)\n\s*```\Z", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class Reading:
    """What was read.

    Attributes:
        verdicts: dimension -> the side that wins; dimensions without a verdict are absent.
        rule: how it was found.
        ties: dimensions on which the reply says that the sides are equal.
    """

    verdicts: Mapping[str, str] = field(default_factory=dict)
    rule: Rule = "dropped"
    ties: tuple[str, ...] = ()


DROPPED = Reading()


def released(reply: str) -> Reading:
    """Read a reply as the release does; the first rule that holds gives all six verdicts.

    1. JSON from the first "{" to the last "}", all six keys A or B in any case;
    2. per dimension its name, a colon, and A or B as the next letter, anywhere, all six needed;
    3. the first [[A]] or [[B]];
    4. a stand-alone A or B in any case, if there is exactly one. (The release's fifth rule, a reply of nothing but a
       letter, is contained in this one.)
    """
    text = reply.strip().strip('"')
    if found := lenient_object(text):
        return Reading(found, "json")
    matches = {name: pattern.search(text) for name, pattern in BY_NAME.items()}
    if all(matches.values()):
        return Reading({name: match.group(1).upper() for name, match in matches.items()}, "regex")
    if match := BRACKETS.search(text):
        return Reading(dict.fromkeys(DIMENSIONS, match.group(1).upper()), "brackets")
    alone = ALONE.findall(text)
    return Reading(dict.fromkeys(DIMENSIONS, alone[0].upper()), "lone letter") if len(alone) == 1 else DROPPED


def lenient_object(text: str) -> dict[str, str]:
    """The six verdicts of the JSON object between the outermost braces; empty where one is missing."""
    start, end = text.find("{"), text.rfind("}")
    try:
        held = json.loads(text[start : end + 1]) if min(start, end) >= 0 else None
        if not isinstance(held, dict):
            return {}
        found = {name: str(held.get(name, "")).strip().upper() for name in DIMENSIONS}
    except (ValueError, RecursionError):
        return {}
    return found if set(found.values()) <= set(SIDES) else {}


def strict(reply: str) -> Reading:
    """Read only what was asked for: one JSON object of the six keys, each "A" or "B", and at most a reason.

    Thinking that is marked as such may stand before it, and a code fence around it.
    """
    held = strict_object(reply)
    if held is None or any(held[name] not in tuple(SIDES) for name in DIMENSIONS):
        return DROPPED
    return Reading({name: held[name] for name in DIMENSIONS}, "json")


def strict_object(reply: str) -> dict[str, Any] | None:
    """The object that a reply consists of, with the six keys, a reason or none, and nothing else."""
    said = (after_thinking(reply) or "").strip()
    fenced = FENCE.match(said)
    try:
        held = load_json(fenced.group(1) if fenced else said)
    except (ValueError, RecursionError):
        return None
    return held if isinstance(held, dict) and set(held) - {"reason"} == set(DIMENSIONS) else None


def graded(replies: tuple[str, str]) -> Reading:
    """Read two replies of `score` mode: the higher grade wins, equal grades are a tie.

    A dimension with no number in range on either side has no verdict.
    """
    grades = [grades_of(reply) for reply in replies]
    both = [name for name in DIMENSIONS if all(name in held for held in grades)]
    first, second = grades
    found = {name: SIDES[first[name] < second[name]] for name in both if first[name] != second[name]}
    return Reading(found, "json" if both else "dropped", tuple(name for name in both if name not in found))


def grades_of(reply: str) -> dict[str, float]:
    """The grades that a reply gives, by dimension; what is no number in range is left out."""
    held = strict_object(reply) or {}
    numbers = {name: held.get(name) for name in DIMENSIONS}
    return {
        name: float(number)
        for name, number in numbers.items()
        if isinstance(number, int | float) and not isinstance(number, bool) and LOWEST <= number <= HIGHEST
    }


def ranked(reply: str) -> Reading:
    """Read a reply of `batch` mode about two answers: each value an order of both letters, the better one first."""
    held = strict_object(reply) or {}
    orders = {name: str(held.get(name, "")).replace(" ", "").replace(",", "").replace(">", "") for name in DIMENSIONS}
    found = {name: order[0] for name, order in orders.items() if order in (SIDES, SIDES[::-1])}
    return Reading(found, "json" if found else "dropped")
