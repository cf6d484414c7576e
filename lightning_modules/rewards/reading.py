"""How a reasoning text is read: words, sentences, which options it names, which it rejects, what it concludes."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

LETTERS = "abcdefghij"
WORD = re.compile(r"\d+(?:\.\d+)?%?|[^\W\d_]+(?:'[^\W\d_]+)?")
SENTENCE_END = re.compile(r"[!?;\n]|\.(?!\d)")
QUOTES = {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'}
LOOK_ALIKES = dict(
    zip("\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u03bf\u0131", "aeopcyxijoi", strict=True)
)
UNSEEN = dict.fromkeys("\u00ad\u200b\u200c\u200d\u2060\ufeff", "")
FOLDED = str.maketrans(QUOTES | LOOK_ALIKES | UNSEEN)
"""Curly quotes, Cyrillic and other letters that look Latin, and characters that nobody sees."""

NEGATION = r"(?:not|no|never|without|neither|nor|lacks?|lacking|cannot|\w+n't)"
NEGATED = re.compile(rf"\b{NEGATION}\s+(?:\w+\s+){{0,2}}$")

REASON = re.compile(
    r"\b(?:because|since|as|due to|given|would|needs?|requires?|expects?|but|although|whereas|lacks?|without|"
    r"absent|absence)\s+\S"
)
CUE = re.compile(
    r"\b(?:fits?|fitting|supports?|supported|favou?rs?|favou?red|consistent|compatible|suggests?|likely|unlikely|"
    r"match(?:es)?|explains?|points?|argues?|against|versus|vs|because|since|needs?|requires?|excluded?|"
    r"excludes|rules?|ruled|rejected|possible|plausible|considered?)\b"
)
CONCLUDES = re.compile(
    r"\b(?:answer(?: is|:)?|conclusion|conclude|verdict|final(?:ly)?|diagnosis(?: is|:)|i (?:choose|pick|select))"
    r"(?=\W|$)"
)

REJECT_BEFORE = re.compile(
    r"\b(?:(?:not|no|never|cannot|than|excludes?|excluding|rejects?|rejecting|dismiss(?:es)?|against|unlike|over|without|"
    r"rules? out|ruling out|instead of|neither|nor)\s+(?:(?:a|an|the|simply|just|really|likely|be|to be|"
    r"consistent with|for|in favour of)\s+)*|\w+n't\s+(?:be\s+|fit\s+|support\s+|suggest\s+)?(?:a\s+|an\s+|the\s+)?)$"
)
REJECT_AFTER = re.compile(
    r"[\s,]*(?:however,?\s+)?(?:(?:is|are|was|were|seems|looks|appears|can be|must be|gets|becomes)\s+)?"
    r"(?:therefore\s+|thus\s+|then\s+|also\s+|clearly\s+|very\s+|much\s+|more\s+)*"
    r"(?:unlikely|less likely|less probable|improbable|excluded|ruled out|rejected|dismissed|discarded|out\b|wrong|"
    r"incorrect|(?:is|are|was) (?:not|too)\b|not likely|not supported|isn't|wasn't|aren't|"
    r"does not|doesn't|do not|don't|did not|didn't|"
    r"cannot|can't|would (?:need|require|show|give|have|be)|fails|lacks)"
)
REJECTED_LATER = re.compile(  # "consider it, but …, so it is rejected"
    r"\b(?:so|hence|thus|therefore|and)\s+(?:it|this)\s+is\s+(?:rejected|excluded|ruled out|dismissed|discarded)\b"
)
KEPT_AFTER = re.compile(  # double negation: the option is kept
    r"[\s,]*(?:(?:is|are|was|were|can|could)\s*)?(?:not|cannot|can't|isn't)\s+(?:yet\s+)?(?:be\s+)?"
    r"(?:unlikely|excluded|ruled out|rejected|dismissed|discarded|improbable|wrong)"
)
JOINED = re.compile(r"[\s,/]*(?:and|or|nor|,|/)?\s*")


@dataclass(frozen=True)
class Mention:
    """One option named in a text.

    Attributes:
        option: its index.
        start: character where it begins.
        end: character behind it.
        rejected: the sentence denies it.
        reasoned: and gives a reason in the same sentence.
        weighed: the sentence holds a word for or against something.
    """

    option: int
    start: int
    end: int
    rejected: bool
    reasoned: bool
    weighed: bool


def normal(text: str) -> str:
    """Case folded, NFKC, without disguises (`FOLDED`): the form in which texts and options are compared."""
    return unicodedata.normalize("NFKC", text).casefold().translate(FOLDED)


def words(text: str) -> list[str]:
    """Words and numbers of a normal text, in order."""
    return WORD.findall(text)


def sentences(text: str) -> list[tuple[int, int]]:
    """(start, end) of the sentences of a normal text; a point inside a number ends none."""
    ends = [match.end() for match in SENTENCE_END.finditer(text)] + [len(text)]
    starts = [0, *ends[:-1]]
    return [(start, end) for start, end in zip(starts, ends, strict=True) if text[start:end].strip(" \t\r\n.!?;")]


@lru_cache(maxsize=4096)
def option_pattern(options: tuple[str, ...]) -> tuple[re.Pattern[str], dict[str, int]]:
    """One expression that finds any option's text, the longest first, and which option it is."""
    index = {" ".join(normal(text).split()): i for i, text in enumerate(options)}
    texts = sorted((text for text in index if text), key=len, reverse=True)
    body = "|".join(r"\s+".join(map(re.escape, text.split())) for text in texts)
    letters = LETTERS[: len(options)]
    by_letter = (
        rf"(?:\b(?:option|choice|answer(?: is)?:?)\s+\(?|\()([{letters}])(?=\)|\s*(?:$|[.,;:!]|because\b|since\b))"
    )
    return re.compile(rf"(?<![\w-])({body})(?![\w-])|{by_letter}" if body else by_letter), index


def mentions(text: str, options: Sequence[str]) -> list[Mention]:
    """Every option that a normal text names, by its text or as "option b", with what the sentence says of it."""
    pattern, index = option_pattern(tuple(options))
    by_letter_group = pattern.groups
    found: list[Mention] = []
    for start, end in sentences(text):
        matches = list(pattern.finditer(text, start, end))
        if not matches:
            continue
        sentence = text[start:end]
        reasoned, weighed = bool(REASON.search(sentence)), bool(CUE.search(sentence))
        fates: list[bool] = []
        for i in range(len(matches) - 1, -1, -1):
            before = text[max(matches[i - 1].end() if i else start, matches[i].start() - 80) : matches[i].start()]
            after = text[matches[i].end() : matches[i + 1].start() if i + 1 < len(matches) else end]
            joined = bool(fates) and bool(JOINED.fullmatch(after[:8]))
            fates.append(_rejected(before, after[:80]) or (joined and fates[-1]))
        for match, rejected in zip(matches, reversed(fates), strict=True):
            letter = match[by_letter_group]
            option = LETTERS.index(letter) if letter else index[" ".join(match.group().split())]
            found.append(Mention(option, match.start(), match.end(), rejected, rejected and reasoned, weighed))
    return found


def _rejected(before: str, after: str) -> bool:
    rejected = REJECT_AFTER.match(after) or REJECT_BEFORE.search(before) or REJECTED_LATER.search(after)
    return bool(rejected) and not KEPT_AFTER.match(after)


@dataclass(frozen=True)
class Conclusion:
    """What a reasoning ends in.

    Attributes:
        options: indices of the options that its concluding sentence names and does not reject.
        end: character behind that sentence; what follows came too late to have led to it.
    """

    options: frozenset[int]
    end: int


def conclusion(text: str, found: Sequence[Mention]) -> Conclusion | None:
    """The last sentence that announces an answer and names an option; else the last that names one at all.

    Args:
        text: normal text.
        found: `mentions` of it, in order.
    """
    spans = sentences(text)
    starts = [start for start, _ in spans]
    kept: dict[int, list[Mention]] = {}
    for mention in found:
        if not mention.rejected:
            kept.setdefault(bisect_right(starts, mention.start) - 1, []).append(mention)
    fallback: Conclusion | None = None
    for i in sorted(kept, reverse=True):
        start, end = spans[i]
        announced = CONCLUDES.search(text, start, end)
        after = [mention.option for mention in kept[i] if announced and mention.end > announced.start()]
        if after:
            return Conclusion(frozenset(after), end)
        fallback = fallback or Conclusion(frozenset(mention.option for mention in kept[i]), end)
    return fallback
