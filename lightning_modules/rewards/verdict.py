"""What a reasoning ends up saying, read carefully: whether it concludes another option than the one answered.

`reading.conclusion` finds where a reasoning ends, and any sentence that names an option will do. Here a completion is
about to lose everything, so only sentences that really pass a verdict are heard; what is unclear is no contradiction.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.answers import LETTERS as CAPITALS
from evaluation.answers import extract
from lightning_modules.rewards.reading import (
    KEPT_AFTER,
    LETTERS,
    REJECT_AFTER,
    Mention,
    mentions,
    sentences,
)

STATED, DERIVED, LEANS = 3, 2, 1
"""Ranks of a verdict: "the answer is", "so", "fits". A later verdict beats an earlier one of its rank."""

TOKEN = re.compile(r"[^\W_]+(?:'[^\W_]+)?|[:=]")
FILLER = frozenset(
    "a an the of in fact indeed clearly most likely probably really simply just option choice letter rather instead "
    "now still actually again that either".split()
)
NEGATIONS = frozenset("not never no neither nor cannot".split())
SO = frozenset("so therefore thus hence consequently accordingly".split())
COPULA = frozenset("is be was are remains becomes equals : =".split())
MODAL = frozenset("must should has to can only will".split())
ANSWER = frozenset("answer diagnosis conclusion verdict choice pick impression".split())
CHOOSE = frozenset("choose pick select conclude answer with on for".split())
CHOSEN_BY = frozenset("i we i'll we'll i'd conclude settle go going opt decide".split())
POINTS = frozenset("suggests suggest indicates indicate confirms favours favors means supports fits".split())
LOOKS = frozenset("picture look image pattern sign signs hallmark typical classic characteristic textbook appearance "
                  "suggestive diagnostic case consistent compatible".split())  # fmt: skip
UNSURE = re.compile(
    r"\b(?:if|whether|unless|would|could|might|may|suppose|supposing|initially|at first(?! sight)|tempting|"
    r"someone|perhaps|maybe|possibly|although|though it|despite|versus|vs|think|thought|options?:|"
    r"candidates?)\b|n't think"
)
TURNS = re.compile(
    r"\b(?:on (?:second thoughts?|reflection)|actually|wait|correction|sorry|instead|changed? my mind|after all|"
    r"in truth|in fact|scratch that|revised?|mistake)\b|^[\s,]*(?:no|but|however|yet|still|though)\b"
)
AFTER_STATED = re.compile(
    r"\s*\)?\s*(?:(?:is|must be|remains)\s+(?:clearly\s+|therefore\s+|thus\s+)?(?:the\s+)?"
    r"(?:(?:(?:correct|right|best|final|most likely|only|true)\s+)?(?:answer|diagnosis|choice|verdict|conclusion)|"
    r"correct|right)\b|it is\b)"
)
AFTER_LEANS = re.compile(
    r"\s+(?:best\s+|clearly\s+)?(?:fits|matches|is\s+(?:(?:the\s+)?(?:most|more|very|highly)\s+)?likely\b|"
    r"is\s+(?:favou?red|supported|confirmed)\b)"
)
DENIED_AFTER = re.compile(
    r"\s*\)?\s*(?:(?:is|was|seems|looks|appears|can be|must be)\s+)(?:therefore\s+|thus\s+|then\s+|also\s+|clearly\s+)*"
    r"(?:excluded|ruled out|rejected|dismissed|discarded|wrong|incorrect|impossible|unlikely|improbable|"
    r"not (?:the|likely|correct|right|supported|it)\b)"
)
CLAUSE_END = re.compile(
    r"\s*(?:$|[.,;:!)\"']|(?:because|since|as|and|but|or|which|given|due|not|rather|over|instead|it is|by|here)\b)"
)
HARD_END = re.compile(r"\s*(?:$|[.,;:!)\"'])")
EITHER = re.compile(r"\s*,?\s*(?:or|/|and/or)\s*(?:(?:a|an|the|possibly|perhaps|maybe|even|option)\s+)?\(?")
NO = re.compile(r"\b(?:not?|never|cannot|doubt|hardly)\b|n't\b")
SHORT_WORDS = frozenset("yes no not none true false both neither all either other left right".split())


@dataclass(frozen=True)
class Verdict:
    """One sentence's word on the options.

    Attributes:
        rank: `STATED`, `DERIVED` or `LEANS`.
        options: indices of the options that it affirms; several if it says "A or B".
        denied: it denies them instead.
    """

    rank: int
    options: frozenset[int]
    denied: bool = False


def contradicts(text: str, options: Sequence[str], answer: int) -> bool:
    """Whether a reasoning's last verdict is another option than the one answered, two at once, or denies that one.

    Stated verdicts ("the answer is …", "I conclude …", a correction) come before derived ones ("so …", "that leaves
    …"), and these before mere leanings ("… fits", "typical of …"), which count only where nothing leans to the answer.

    Args:
        text: the reasoning, as `reading.normal` gives it.
        options: the texts in the order shown.
        answer: index of the answered option.

    Choice: a reasoning without a verdict, or with one that names no option, contradicts nothing. Where an option is a
        single letter or digit (blood groups), a verdict cannot be told from an article, and none is read.
    """
    if any(len(option.strip()) < 2 for option in options):
        return False
    found = verdicts(text, options)
    for rank in (STATED, DERIVED):
        for verdict in reversed([item for item in found if item.rank == rank]):
            if not verdict.denied:
                return verdict.options != {answer}
            if answer in verdict.options:
                return True
    plain = extract(text, options, "lenient")
    if plain.letter is not None and plain.reason == "statement":
        return CAPITALS.index(plain.letter) != answer
    leanings = [item for item in found if item.rank == LEANS]
    towards = {option for item in leanings if not item.denied for option in item.options}
    against = {option for item in leanings if item.denied for option in item.options}
    return answer not in towards and bool(towards or answer in against)


def verdicts(text: str, options: Sequence[str]) -> list[Verdict]:
    """Every verdict of a normal text, in order; questions and suppositions are none."""
    named = mentions(text, options)
    found: list[Verdict] = []
    place = 0
    for start, end in sentences(text):
        here: list[Mention] = []
        while place < len(named) and named[place].start < end:
            here.append(named[place])
            place += 1
        if text[end - 1 : end] != "?":
            found += _of_sentence(text, start, end, here, options) + _by_letter(text[start:end], len(options))
    return found


def _of_sentence(text: str, start: int, end: int, here: Sequence[Mention], options: Sequence[str]) -> list[Verdict]:
    """Verdicts of one sentence on the options that it names."""
    found: list[Verdict] = []
    turned = bool(here) and bool(TURNS.search(text[start : here[0].start]))
    last_end, joined = start, False
    for i, mention in enumerate(here):
        before = text[max(last_end, mention.start - 80) : mention.start]
        stop = here[i + 1].start if i + 1 < len(here) else end
        after = text[mention.end : min(stop, mention.end + 80)]
        doubtful = UNSURE.search(text, max(start, mention.start - 200), mention.start)
        found_here = None if doubtful else _verdict(before, after, mention.option, options, opens=last_end == start)
        if joined and found and not found[-1].denied:
            found[-1] = Verdict(found[-1].rank, found[-1].options | {mention.option})
        elif found_here:
            firm = found_here.rank == DERIVED or found_here.denied
            rank = STATED if turned and firm else found_here.rank
            found.append(Verdict(rank, found_here.options, found_here.denied))
        joined = bool(found_here or joined) and i + 1 < len(here) and bool(EITHER.fullmatch(text[mention.end : stop]))
        last_end = mention.end
    return found


def _verdict(before: str, after: str, option: int, options: Sequence[str], *, opens: bool) -> Verdict | None:
    """The verdict of one mention, by the words on both sides of it within its sentence."""
    one = frozenset([option])
    kept = bool(KEPT_AFTER.match(after))
    if DENIED_AFTER.match(after) and not kept:
        return Verdict(LEANS, one, denied=True)
    rejected = bool(REJECT_AFTER.match(after)) and not kept
    rank, negated = _lead(TOKEN.findall(before), opens=opens, ends=bool(HARD_END.match(after)))
    short = options[option].casefold() in SHORT_WORDS
    behind = HARD_END if short else CLAUSE_END
    if rank is not None and not rejected and (behind.match(after) or (rank == STATED and not short)):
        return Verdict(rank, one, negated)
    doubted = rejected or bool(NO.search(before))
    if AFTER_STATED.match(after) and not doubted:
        return Verdict(STATED, one)
    return Verdict(LEANS, one) if AFTER_LEANS.match(after) and not doubted else None


def _lead(tokens: Sequence[str], *, opens: bool, ends: bool) -> tuple[int | None, bool]:
    """(rank, is it denied) of the words in front of an option; (None, False) where they pass no verdict on it."""
    i, negated = len(tokens), False
    while i and (tokens[i - 1] in FILLER or tokens[i - 1] in NEGATIONS):
        negated |= tokens[i - 1] in NEGATIONS
        i -= 1
    head = list(tokens[:i])
    if len(head) > 1 and head[-1] in SO and head[-2] in COPULA:
        head.pop()  # "is therefore"
    if not head:
        return None, False
    if head[-1].endswith("n't"):
        return (STATED, True) if set(head[-7:]) & ANSWER else (None, False)
    rank = _equated(head, ends=ends) if head[-1] in (*COPULA, "it's") else _chosen(head, opens=opens, ends=ends)
    if rank is None and not negated and _leans(head, tokens[i:]):
        rank = LEANS
    return rank, negated and rank is not None


def _equated(head: Sequence[str], *, ends: bool) -> int | None:
    """Rank of words that end in "is", "be", ":" and their like."""
    recent = set(head[-7:])
    if recent & ANSWER or "conclude" in recent:
        return STATED
    if head[-1] == ":":
        return DERIVED if ends and len(head) > 2 else None
    subject = next((word for word in reversed(head[:-1]) if word not in MODAL), "")
    return DERIVED if head[-1] == "it's" or subject in ("it", "this") else None


def _chosen(head: Sequence[str], *, opens: bool, ends: bool) -> int | None:
    """Rank of words that end in a choice, or in "so"."""
    last, recent = head[-1], set(head[-7:])
    if last in ("answer", "conclusion", "verdict") or (last in CHOOSE and recent & CHOSEN_BY):
        return STATED
    if last in SO:
        return STATED if opens and len(head) == 1 and ends else DERIVED
    return DERIVED if last in ("leaves", "leaving") else None


def _leans(head: Sequence[str], skipped: Sequence[str]) -> bool:
    """Whether words end in "suggests", "typical of", "consistent with" and their like."""
    if head[-1] == "case":
        return "of" in skipped
    points_to = head[-1] in ("with", "for", "to") and bool(set(head[-3:-1]) & (LOOKS | {"points"}))
    return head[-1] in POINTS or head[-1] in LOOKS or points_to


BARE = re.compile(
    rf"\b(?:(?:i|we)(?:'ll)?\s+(?:choose|pick|select|answer)|answer(?:\s+is|:)?|^\s*(?:so|therefore|thus|hence),?)\s+"
    rf"\(?([{LETTERS}])\)?\s*[.!,;]?\s*$"
)


def _by_letter(sentence: str, n_options: int) -> list[Verdict]:
    """The verdict of a sentence that ends in a bare letter: "therefore b", "i choose b"."""
    match = BARE.search(sentence[-60:])
    if match is None or UNSURE.search(sentence[-200:]) or LETTERS.index(match[1]) >= n_options:
        return []
    return [Verdict(STATED, frozenset([LETTERS.index(match[1])]))]
