"""Questions without options: which of yes and no, or which short text, a completion answers, and how near it is."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from evaluation.answers import Mode, strict_block
from evaluation.lenient import BLOCK, lenient_choice
from evaluation.marks import BOX, plain
from evaluation.rules import REFUSAL
from evaluation.thinking import after_thinking

YES_NO = ("yes", "no")
LONGEST = 12
"""Words of a text without any marker that is still taken for the answer itself."""
MARKED = re.compile(
    r"\b(?:(?:the\s+)?(?:final\s+)?answer|diagnosis)(?:\s+(?:is|should be|must be)\b\s*:?|\s?[:=])\s*", re.IGNORECASE
)
SENTENCE = re.compile(
    r"(?<!\bSt)(?<!\bDr)(?<!\bvs)(?<!\bapprox)(?:(?<!\b[A-Z])|(?!\.\s+[a-z]))\.(?=\s|$)"  # "St. Jude", "E. coli"
    r"|[;!](?=\s|$)|\n"
)
WORD = re.compile(
    r"[<>]=?|\+|(?<!\w)-(?=\d)|(?<=\w)-(?!\w)|-(?=\W*$)"  # "> 5", "ER+", "-5", "ER-", "ER -"
    r"|\d+(?:[.,]\d+)*|\w+(?:'\w+)?"
)
SIGNS = str.maketrans({"\u2019": "'", "\u2212": "-", "≤": "<=", "≥": ">="})
ARTICLES = frozenset(("an", "the"))
BEFORE_ARTICLE = frozenset("of in with on at by to from for as is are has shows and or than".split())
"""Words after which "a" is an article; after others it is a name, as in "hepatitis A"."""


@dataclass(frozen=True)
class ShortAnswer:
    """What was read.

    Attributes:
        text: the answer as written, or "yes" or "no"; None where nothing could be read without guessing.
        reason: how it was read or why not: the codes of `evaluation.answers` and `evaluation.lenient`.
    """

    text: str | None
    reason: str


def extract_yes_no(text: str, mode: Mode = "strict") -> ShortAnswer:
    """Read yes or no where no lettered options were shown: a bare "A" is neither.

    Strict: the one answer block after the thinking is yes or no, in any case, without anything else. Lenient: the
    rules of `evaluation.lenient`; "there is no fracture" is not read as "no", since the question may be negative.

    Args:
        text: the completion as generated.
        mode: as of `evaluation.answers.extract`.
    """
    content, fault = strict_block(text)
    if content is not None and content.casefold() in YES_NO:
        return ShortAnswer(content.casefold(), "option_text")
    if mode == "strict":
        return ShortAnswer(None, fault or "not_an_option")
    region = after_thinking(text)
    if region is None:
        return ShortAnswer(None, "unclosed_think")
    index, reason = lenient_choice(region, YES_NO, lettered=False)
    return ShortAnswer(None if index is None else YES_NO[index], reason)


def extract_open(text: str, mode: Mode = "strict") -> ShortAnswer:
    """Read a short free answer.

    Strict: the content of the one answer block after the thinking. Lenient: the answer block or box, else what follows
    "answer is" up to the end of its sentence, else a text of one line and few words; a longer text without any marker
    is not searched for its answer. Several answers that differ are a conflict.

    Args:
        text: the completion as generated.
        mode: as of `evaluation.answers.extract`.
    """
    content, fault = strict_block(text)
    if content:
        return ShortAnswer(content, "answer_tag")
    if mode == "strict":
        return ShortAnswer(None, fault or "no_answer")
    region = after_thinking(text)
    if region is None:
        return ShortAnswer(None, "unclosed_think")
    region = plain(region)
    marks = [*MARKED.finditer(region)]
    ends = [*(mark.start() for mark in marks[1:]), len(region)]
    for reason, answers in (
        ("answer_tag", [match["content"] for match in BLOCK.finditer(region)]),
        ("boxed", [match.group(1) for match in BOX.finditer(region)]),
        (
            "statement",
            [SENTENCE.split(region[m.end() : end], maxsplit=1)[0] for m, end in zip(marks, ends, strict=False)],
        ),
    ):
        found = [answer.strip() for answer in answers if normal_answer(answer)]
        if len(set(map(normal_answer, found))) > 1:
            return ShortAnswer(None, "conflict")
        if found:
            return ShortAnswer(found[0], reason)
    if REFUSAL.search(region):
        return ShortAnswer(None, "refusal")
    if region and not re.search(r"[\n?⟪]|</?answer|\\boxed", region) and len(region.split()) <= LONGEST:
        return ShortAnswer(region.rstrip(".").strip() or None, "whole")
    return ShortAnswer(None, "nothing")


def read_short(text: str, gold: str, mode: Mode = "strict") -> ShortAnswer:
    """Read the answer to a question without options: yes or no where the right answer is one of them, else a text.

    Args:
        text: the completion as generated.
        gold: the right answer.
        mode: as of `evaluation.answers.extract`.
    """
    closed = gold.strip().casefold() in YES_NO
    return (extract_yes_no if closed else extract_open)(text, mode)


def is_same(said: str | None, gold: str) -> bool:
    """Whether a short answer that was read is the right one, after `normal_answer`."""
    return said is not None and normal_answer(said) == normal_answer(gold)


def normal_answer(text: str) -> str:
    """A text for comparison: NFKC, case folded, words, numbers and signs; articles out unless nothing else is left.

    Signs stay where they carry a finding ("ER+", "ER-", "< 5 cm", "-5"), hyphens do not.
    """
    folded = unicodedata.normalize("NFKC", text).casefold().translate(SIGNS)
    words = WORD.findall(folded)
    kept = [word for i, word in enumerate(words) if word not in ARTICLES and not _is_article(words, i)]
    return " ".join(kept or words or folded.split())


def _is_article(words: list[str], i: int) -> bool:
    """Whether this "a" is an article: another word follows, and none or a preposition or the like stands before."""
    followed = i + 1 < len(words) and words[i + 1][0].isalnum()
    return words[i] == "a" and followed and (i == 0 or words[i - 1] in BEFORE_ARTICLE)


class Overlap(NamedTuple):
    """How near an answer is to the right one, by words; each in [0, 1]."""

    exact: bool
    precision: float
    recall: float
    f1: float


def overlap(answer: str, gold: str) -> Overlap:
    """Compare a free answer with the right one after `normal_answer`, repeated words counting as often as they occur.

        precision = |common| / |answer|        recall = |common| / |gold|        f1 = 2 p r / (p + r)

    Source: Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1.
    """
    said, right = normal_answer(answer).split(), normal_answer(gold).split()
    common = (Counter(said) & Counter(right)).total()
    if not common:
        return Overlap(said == right and bool(right), 0.0, 0.0, 0.0)
    precision, recall = common / len(said), common / len(right)
    return Overlap(said == right, precision, recall, 2 * precision * recall / (precision + recall))
