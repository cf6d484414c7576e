"""The lenient reading: a text as a sequence of claims; it would rather give up than guess.

The answer block comes first; without one, frames, lone letters and the rules of `evaluation.rules` make claims, and
what they come down to is said in `evaluation.claims`. Headings, enumerations and ruled-out options are no verdicts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

from evaluation.claims import FINAL, LEANS, Claim, Rule, settled
from evaluation.marks import BOTH, BOX, TEXT, Marker, option_of, plain
from evaluation.mentions import mentioned
from evaluation.rules import (
    ALIKE,
    CLAUSE,
    CORRECTED,
    DOUBT,
    EXPLAINS,
    HEADING,
    HYPOTHETICAL,
    INTRO,
    JOIN,
    LEADING,
    LEFT_OPEN,
    MARK,
    NOT_BUT,
    OPENING,
    OPPOSITE,
    RULES,
    SURE,
    TAKEN_BACK,
    TURN,
)

LenientReason = Literal[
    "answer_tag",  # read: the answer block
    "boxed",  # read: \\boxed{B}
    "whole",  # read: the whole text is a letter, "B. text" or an option's text
    "line",  # read: the first or last line is one
    "statement",  # read: "the answer is B", "therefore C", "B is correct"
    "mention",  # read: exactly one option is named and not negated
    "unclosed_think",  # not read: no end of thinking (decided by the caller)
    "conflict",  # not read: two readings disagree
    "several",  # not read: "A or B"
    "negated",  # not read: only says what it is not
    "refusal",  # not read: declines to choose
    "enumeration",  # not read: goes through the options and settles on none
    "nothing",  # not read: none of the rules applies
]

Found = tuple[int | None, LenientReason]

BLOCK = re.compile(
    r"<(answer|final_?answer|final|choice)\b[^<>]{0,64}>(?P<content>.*?)(?:</\1>|$)", re.IGNORECASE | re.DOTALL
)
AROUND = r"\s.!\"'\[\]{}()⟪⟫✅"
LONE = re.compile(
    rf"[{AROUND}>-]*(?:(?:most\s)?(?:likely|probably|definitely|certainly|clearly)\s|[-=]+>\s*|→\s*|answer\s)?"
    rf"(?P<o>{MARK})[{AROUND},;:。、]*",
    re.IGNORECASE,
)
"""A piece of text that is nothing but an option."""


def lenient_choice(region: str, options: Sequence[str], *, lettered: bool = True) -> Found:
    """Read what follows the thinking.

    Args:
        region: of bounded length, see `evaluation.thinking`.
        options: the texts in the order shown.
        lettered: letters were shown beside them; else a letter names nothing.

    Returns:
        The option's index, or None, and the reason.
    """
    text, marks = plain(region), Marker(options, lettered=lettered)
    blocks = [plain(match["content"]) for match in BLOCK.finditer(text)]
    if not blocks:
        return free_text(text, marks, tuple(options))
    found = [free_text(block, marks, tuple(options)) for block in blocks]
    if len({index for index, _ in found}) > 1:
        return None, "conflict"
    return (found[0][0], "answer_tag") if found[0][0] is not None else found[0]


def free_text(text: str, marks: Marker, options: tuple[str, ...]) -> Found:
    """Read a plain text without answer blocks."""
    if (index := marks.whole(text.strip(" .!\"'[]{}"))) is not None:
        return index, "whole"
    marked = marks(text)
    if lone := LONE.fullmatch(marked):
        index = option_of(lone["o"])
        return (index, "boxed" if "⟪" in lone[0] else "whole") if index is not None else (None, "conflict")
    lines, listed = lone_lines(marked)
    if not listed and (opening := OPENING.fullmatch(marked)):
        lines.append(Claim(0, frozenset([option_of(opening["o"])]), LEANS))
    found = settled([*lines, *frames(marked), *stated(marked)], marked, TURN)
    if found is not None and (listed or found != (None, "negated")):
        return found
    named = (None, "enumeration") if listed else mentioned(marked, options)
    return named if found is None or named[0] is not None else found


def frames(text: str) -> Iterator[Claim]:
    """Boxes that hold one option; a box that holds none silences nothing."""
    for box in BOX.finditer(text):
        if lone := LONE.fullmatch(box[1]):
            yield Claim(box.start(), frozenset([option_of(lone["o"])]), FINAL, how="boxed")


def lone_lines(text: str) -> tuple[list[Claim], bool]:
    """(claims of lines that are nothing but an option, whether the text goes through the options).

    In a text that goes through the options, such a line is a heading, unless its option had one before, with words
    below it, or it stands first and its explanation follows.
    """
    headings = [option_of(heading["o"] or heading["inline"]) for heading in HEADING.finditer(text)]
    several_lines = "\n" in text
    listed = len(set(headings)) > 1 or bool(headings and several_lines and INTRO.search(text))
    cut = several_lines and bool(LEFT_OPEN.search(text))
    claims: list[Claim] = []
    described: set[int | None] = set()
    start, above = 0, None
    for line, below in pairwise([*text.split("\n"), ""]):
        lone, heading = LONE.fullmatch(line), HEADING.match(line)
        here = option_of((lone or heading)["o"]) if lone or heading else None
        explained = start == 0 and EXPLAINS.match(below)
        if lone and (here in described or explained or not (listed or (start == 0 and cut))):
            claims.append(Claim(start, frozenset([here]), how="line"))
        if not lone:
            described.add(here if heading else above)
        above = here if lone else None
        start += len(line) + 1
    return claims, listed or bool(headings and several_lines and not claims)


def stated(text: str) -> Iterator[Claim]:
    """Claims that the rules find."""
    for rule in RULES:
        for match in rule.pattern.finditer(text):
            yield from claim(rule, match, text)


def claim(rule: Rule, match: re.Match[str], text: str) -> Iterator[Claim]:
    """What a match of a rule claims, seen with the words around it."""
    before, end = text[max(0, match.start() - 200) : match.start()], match.end()
    option = option_of(match["o"])
    undone = HYPOTHETICAL.match(text, end) or OPPOSITE.search(before) or unsure(before, match, after=rule.behind)
    if undone or (rule.letters and TEXT <= match["o"] < BOTH):
        return
    groups = match.groupdict()
    negated = rule.denies or any(groups.get(name) for name in ("neg", "nt", "neither"))
    place = match.start("o")
    if not rule.behind:
        alike = None if negated else ALIKE.match(text, end)  # "B is correct, as is C"
        options = {option, option_of(alike["o"])} if alike else {option}
        yield Claim(place, frozenset(options), rule.rank, denied=negated)
        return
    if corrected := CORRECTED.match(text, end):  # "B, no, C"
        yield Claim(corrected.start("o"), frozenset([option_of(corrected["o"])]), rule.rank)
    elif negated or TAKEN_BACK.match(text, end):
        yield Claim(place, frozenset([option]), rule.rank, denied=True)
        if turn := NOT_BUT.match(text, end):
            yield Claim(turn.start("o"), frozenset([option_of(turn["o"])]), rule.rank)
    else:
        join = JOIN.match(text, end)
        options = {option, option_of(join["o"])} if join else {option}
        yield Claim(place, frozenset(options), rule.rank)


def unsure(before: str, match: re.Match[str], *, after: bool) -> bool:
    """Whether the words before a claim, in what it depends on, doubt or deny it."""
    if after:
        return bool(DOUBT.search(SURE.sub("", re.split(r"[.;:,!?\n。]", before)[-1])))
    lead = before + match[0][: match.start("o") - match.start()]
    sentence = re.split(r"[.;!?\n。](?=\s)|\n|。", lead)[-1]
    clause = CLAUSE.split(sentence)[-1].strip()
    leading = LEADING.match(clause + " ")
    said = sentence if clause.startswith("that ") or clause == "that" else leading.group() if leading else ""
    return bool(DOUBT.search(SURE.sub("", said)))
