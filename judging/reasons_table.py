"""How often answers are right for the right reason: a table beside the accuracy, and what holds of the difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from evaluation.agents import cast
from evaluation.clustered import clustered_wilson
from evaluation.comparison_report import Comparison
from evaluation.pairwise import compare_pair, judged
from evaluation.predictions import Prediction
from evaluation.report_files import markdown, p_value, percent
from evaluation.systems import System
from judging.reasoning import Reasoning

Key = tuple[str, tuple[str, str, str, int]]
"""(model, key of the prediction)."""
Readings = Mapping[Key, Reasoning]
HEADER = (
    *("model", "specialty", "n", "patients", "accuracy, %", "right for the right reason, %", "by steps that follow, %"),
    *("right reasons of right answers, %", "findings true, %", "findings found, %", "steps follow, %"),
    *("steps not read, %", "conclusion agrees, %"),
)
CAPTION = (
    "Right for the right reason: the answer is right, every finding that the question's rule asks for is stated and "
    "never wrongly, and the reasoning concludes the option that is answered; by steps that follow: these do so too. "
    "Findings true: of all statements of a finding, those that hold in the case (precision). Findings found: of the "
    "findings that the rule asks for, those stated rightly (recall). Steps follow: the rule makes of the findings as "
    "stated, true or not, what is concluded, and every step on the way fits them; steps not read are in other words "
    "than the reader knows, and count as not following. Conclusion agrees: with the answer. Intervals are 95 %, by "
    "patient."
)


def reasons_table(answers: Sequence[Prediction], readings: Readings, by: str = "") -> str:
    """The table in Markdown.

    Args:
        answers: whose reasoning was read, in the order of the rows.
        readings: what was read; answers without one are left out.
        by: tag that breaks the specialties down; empty leaves them whole.
    """
    parts: dict[str, dict[str, list[Prediction]]] = {}
    for item in answers:
        if (item.model, item.key) in readings:
            part = f"{item.specialty}: {item.tags.get(by, '(none)')}" if by else item.specialty
            parts.setdefault(item.model, {}).setdefault(part, []).append(item)
    rows = []
    for model, own in parts.items():
        rows += [line_of(model, part, items, readings) for part, items in own.items()]
        if len(own) > 1:
            rows.append(line_of(model, "all questions", [item for items in own.values() for item in items], readings))
    return markdown(HEADER, rows)


def line_of(model: str, part: str, items: Sequence[Prediction], readings: Readings) -> list[str]:
    """One row of the table."""
    read = [readings[item.model, item.key] for item in items]
    patients = [(item.specialty, item.patient_id) for item in items]

    def cell(values: Callable[[Reasoning], Sequence[bool | None]]) -> str:
        flat = [(v, who) for one, who in zip(read, patients, strict=True) for v in values(one) if v is not None]
        if not flat:
            return "-"
        right, whose = zip(*flat, strict=True)
        return percent(sum(right) / len(right), *clustered_wilson(right, whose))

    return [
        *(model, part, str(len(items)), str(len(set(patients)))),
        cell(lambda one: (one.right,)),
        cell(lambda one: (one.right_reason,)),
        cell(lambda one: (one.sound,)),
        cell(lambda one: (one.right_reason,) if one.right else ()),
        cell(lambda one: one.named),
        cell(lambda one: one.needed),
        cell(lambda one: (one.steps,)),
        cell(lambda one: (one.unread,)),
        cell(lambda one: (one.agrees,)),
    ]


def reasons_verdict(answers: Sequence[Prediction], readings: Readings) -> list[str]:
    """What holds of base, experts and agents, one line each: their own accuracy beside their right reasons.

    Nothing where the rows are no matrix, or some answer's reasoning is not known.
    """
    known = [item for item in answers if (item.model, item.key) in readings]
    one = cast(known) if known else None
    if one is None or any(readings[item.model, item.key].right_reason is None for item in known):
        return []
    systems = [one.base, *one.stages.values(), *one.agents.values()]
    reasoned = [held_to(system, readings, lambda one: one.right_reason) for system in systems]
    lines = [
        f"- {system.name}: {share_of(system)} right, {share_of(other)} for the right reason"
        for system, other in zip(systems, reasoned, strict=True)
    ]
    if all(readings[item.model, item.key].sound is not None for item in known):
        sound = [share_of(held_to(system, readings, lambda one: one.sound)) for system in systems]
        lines = [f"{line}, {whole} by steps that follow" for line, whole in zip(lines, sound, strict=True)]
    grown = reasoned[: 1 + len(one.stages)]  # the base, then stage upon stage
    pairs = [*pairwise(grown), *((reasoned[0], agent) for agent in reasoned[len(grown) :])]
    compared = [compare_pair(*pair)[-1] for pair in pairs]  # the mean over specialties, or the only one
    return [f"{line}." for line in lines] + list(map(told, judged(compared)))


def held_to(system: System, readings: Readings, says: Callable[[Reasoning], bool | None]) -> System:
    """The same system, right where its reasoning is also what is asked of it."""
    return replace(system, right={key: bool(says(readings[item.model, key])) for key, item in system.items.items()})


def share_of(system: System) -> str:
    """The share of right answers with its interval."""
    right = [system.right[key] for key in system.items]
    patients = [(key[0], item.patient_id) for key, item in system.items.items()]
    return percent(sum(right) / len(right), *clustered_wilson(right, patients)) + " %"


def told(row: Comparison) -> str:
    """A difference in words."""
    held = {"better": "more", "worse": "fewer"}.get(row.verdict, f"no difference that {row.n} questions can show")
    return (
        f"- {row.system} against {row.baseline}, right for the right reason, {row.specialty}: {held}, "
        f"{percent(row.difference, row.low, row.high, '+')} points, p {p_value(row.p_holm)}."
    )
