"""Options and answers are told together: a way of reading both is likely where it gives every row a right option."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from datamodules.batch import LETTERS, BadExampleError
from datamodules.cells import Cells
from datamodules.columns import AnswerKind, Columns, right_option, stem_and_choices
from datamodules.options import same_words
from datamodules.proposal.roles import Draft, named, option_columns, option_lists
from datamodules.proposal.sample import Sample, distinct
from datamodules.rows import Record

ENOUGH = 0.9
"""Of the rows that a way of reading must fit; the others will be told as bad rows."""
MOST_CHOICES = 10
KINDS: tuple[AnswerKind, ...] = get_args(AnswerKind)


class UnclearError(ValueError):
    """Nothing can be proposed; the message says what to say on the command line."""


@dataclass(frozen=True)
class Reading:
    """A way of reading options and answers.

    Attributes:
        options: columns of them.
        separator: within one.
        answer: column of the answer.
        kind: how it is given.
        right: the right option of each row, None where the way does not fit it.
        why: the options are likely there.
    """

    options: Sequence[str]
    separator: str
    answer: str
    kind: AnswerKind
    right: Sequence[str | None]
    why: str

    @property
    def fits(self) -> float:
        """Of the rows."""
        return sum(one is not None for one in self.right) / len(self.right)


def find_answers(sample: Sample, draft: Draft) -> None:
    """Find the columns of options and answer.

    Raises:
        UnclearError: nothing fits, or several ways fit and say different things.
    """
    fitting = [one for one in readings(sample, draft) if one.fits >= ENOUGH]
    if not fitting:
        without_options(sample, draft)
        return
    best = max(fitting, key=lambda one: (one.fits, len(one.options)))
    alike = [one for one in fitting if (one.options, one.answer, one.fits) == (best.options, best.answer, best.fits)]
    rivals = [one for one in alike if one.right != best.right]
    if rivals:
        row, ours, theirs = first_difference(sample, best, rivals[0])
        raise UnclearError(
            f"column {best.answer!r} may hold answers as {best.kind} or as {rivals[0].kind}: in row {row} the right "
            f"option is then {ours!r} or {theirs!r}. Say which: answer_as={best.kind} or answer_as={rivals[0].kind}"
        )
    others = {one.answer for one in fitting if one.answer != best.answer and one.right != best.right}
    if others:
        draft.unsure.append(f"answer: {', '.join(map(repr, sorted(others)))} would fit too, and say something else")
    draft.take("options", list(best.options), best.why)
    draft.take("answer", best.answer, f"its name; it fits the options of {best.fits:.0%} of the rows as {best.kind}")
    draft.settings["answer_as"] = best.kind
    if best.separator:
        draft.settings["separator"] = best.separator


def readings(sample: Sample, draft: Draft) -> Iterator[Reading]:
    """Every way of reading that the names of the columns suggest."""
    given = draft.columns.get("options")
    ways: list[tuple[list[str], str, str]] = []
    if given:
        ways.append((list(given), str(draft.settings.get("separator", "")), "as you said"))
    else:
        columns = option_columns(sample, draft.used)
        ways += [(columns, "", "one option in each, by their names")] if columns else []
        ways += [([column], separator, why) for column, separator, why in option_lists(sample, draft)]
    asked = draft.settings.get("answer_as")
    for options, separator, why in ways:
        for answer in answer_columns(sample, draft, options):
            for kind in KINDS if asked is None else (asked,):
                found = rights(sample, draft, options, separator, answer, kind)
                yield Reading(options, separator, answer, kind, found, why)


def answer_columns(sample: Sample, draft: Draft, but: Sequence[str]) -> list[str]:
    """Columns that may hold the answer."""
    if "answer" in draft.columns:
        return [draft.columns["answer"]]
    return named(sample, "answer", {*draft.used, *but})


def rights(
    sample: Sample, draft: Draft, options: Sequence[str], separator: str, answer: str, kind: AnswerKind
) -> list[str | None]:
    """The right option of every row, None where a row does not fit."""
    question = draft.columns.get("question", "")
    columns = Columns(question=question, answer=answer, options=tuple(options))
    return [right(row, columns, separator, kind) for row in sample.rows]


def right(row: Record, columns: Columns, separator: str, kind: AnswerKind) -> str | None:
    """The right option of a row; None where it does not fit."""
    cells: Cells = Cells(row, Counter())
    try:
        found = stem_and_choices(cells, columns, "?", separator)[1]
        return right_option(cells, columns.answer, found, kind) if len(found) >= 2 else None
    except BadExampleError:
        return None


def first_difference(sample: Sample, one: Reading, other: Reading) -> tuple[int, Any, Any]:
    """The row in which two readings first differ, with what each says."""
    pairs = zip(sample.rows, one.right, other.right, strict=True)
    return next((row.row, first, second) for row, first, second in pairs if first != second)


def without_options(sample: Sample, draft: Draft) -> None:
    """Answers as texts: few different ones are the options of every row, many make open questions.

    Raises:
        UnclearError: no column may hold the answer, or there are options that no way of reading fits.
    """
    held = answer_columns(sample, draft, ())
    if not held:
        raise UnclearError(
            f"no column is called answer, label or the like; there are {', '.join(map(repr, sample.columns))}. Say "
            "which: columns.answer=NAME"
        )
    ways = option_columns(sample, draft.used) or [column for column, _, _ in option_lists(sample, draft)]
    if ways and "choices" not in draft.settings:
        raise UnclearError(
            f"the options in {', '.join(map(repr, ways))} and the answers in {', '.join(map(repr, held))} do not fit "
            f"each other in {ENOUGH:.0%} of the rows, whether answers are letters, texts or numbers, such as "
            f"{list(distinct(sample.filled(held[0])))[:5]}. Say which columns they are: columns.options=[…] "
            "columns.answer=NAME answer_as=…"
        )
    draft.take("answer", held[0], "its name")
    draft.settings["answer_as"] = "text"
    kinds: dict[str, str] = {}  # without case and spaces -> the commonest spelling
    for kind in distinct(sample.filled(held[0])):
        kinds.setdefault(same_words(kind), kind)
    if "choices" not in draft.settings and 2 <= len(kinds) <= MOST_CHOICES and len(sample.rows) >= 3 * len(kinds):
        draft.settings["choices"] = sorted(kinds.values())
        draft.why["choices"] = f"the {len(kinds)} different answers"
        draft.unsure.append("choices: no column has options; leave `choices` out if the questions are open")
        lone = [kind for kind in kinds.values() if len(kind) == 1 and (kind.isdecimal() or kind.upper() in LETTERS)]
        if lone:
            draft.unsure.append(f"choices: {', '.join(lone)} say little; write out in the table what they stand for")
