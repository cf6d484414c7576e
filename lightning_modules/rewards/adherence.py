"""How far a reasoning follows a guideline: structure that can be read off the text, without a judge.

It sees form, not truth: whether a candidate was excluded with a reason, not whether the reason is right. That is why it
stays below correctness in `combine.py`. The word lists are English; the order of sentences counts, that of the words
within one mostly does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from lightning_modules.rewards.guidelines import Criterion, Guideline
from lightning_modules.rewards.reading import NEGATED, Conclusion, Mention, conclusion, mentions, normal, words

LINK = re.compile(
    r"\b(?:because|since|therefore|thus|hence|consequently|accordingly|which means|this means|meaning that|means that|"
    r"which implies|this implies|implies that|leads? to|leading to|results? in|resulting in|causes?|causing|caused by|"
    r"due to|owing to|as a result|which explains|explains why|produc(?:es|ing)|so that|"
    r"which (?:makes|raises|lowers|allows|prevents))\b"
)
NOT_BECAUSE = re.compile(r"\b(?:not|never|neither|nor|\w+n't)\s+(?:simply\s+|merely\s+|just\s+|only\s+)?$")
PERCENTAGE = re.compile(r"(?<![\d.])(\d{1,3}(?:\.\d{1,6})?)\s?(?:%|percent\b|per cent\b)")
PRIOR = re.compile(r"\b(?:prior|pre-?test|base rate|baseline|prevalence)\b")
POSTERIOR = re.compile(r"\b(?:posterior|post-?test|updated|revised|afterwards|now)\b")
RATIO = re.compile(r"\b(?:likelihood ratio|lr)\b\D{0,12}(\d{1,6}(?:\.\d{1,6})?)")
UP = re.compile(r"\b(?:up|upwards?|raises?|raised|rises?|increases?|increased|higher|climbs?)\b")
DOWN = re.compile(r"\b(?:down|downwards?|lowers?|lowered|falls?|drops?|decreases?|decreased|reduces?)\b")


ANNOUNCING = frozenset(
    "so the answer is a an it this that therefore thus hence final conclusion diagnosis verdict".split()
)


@dataclass(frozen=True)
class Adherence:
    """How far a reasoning follows a guideline.

    Attributes:
        score: in [0, 1].
        criteria: criterion's name -> credit in [0, 1], before weights; of a pitfall, 1 means it was fallen into.
        reason: None, or why the score is 0 whatever the credits.
    """

    score: float
    criteria: Mapping[str, float]
    reason: Literal["contradiction"] | None = None


@dataclass(frozen=True)
class Evidence:
    """The part of a reasoning that led to its conclusion, read once for all criteria.

    Attributes:
        text: normal text up to the end of the concluding sentence.
        n_words: words of the whole reasoning.
        mentions: options named in `text`.
        concluded: options that the concluding sentence names.
        answer: index of the answered option.
    """

    text: str
    n_words: int
    mentions: tuple[Mention, ...]
    concluded: frozenset[int]
    answer: int


def adherence(thinking: str, options: Sequence[str], answer_text: str, guideline: Guideline) -> Adherence:
    """Score a reasoning against the guideline's criteria.

        score = clip( Σ_c w_c · credit_c / Σ_{w_c > 0} w_c, 0, 1 )

    Credit grows with distinct occurrences up to `at_least` and not beyond. Only what stands before the end of the
    concluding sentence counts, denied phrases do not count, and a reasoning that concludes another option than the one
    answered gets 0. Pure, and linear in the text's length.

    Args:
        thinking: the reasoning without tags.
        options: the texts in the order shown.
        answer_text: the option that the completion answers; not necessarily the right one.
        guideline: with at least one criterion of positive weight.

    Raises:
        ValueError: the answer is not among the options, or the guideline has no criteria (`neutral`).

    Source: the aggregate is HealthBench's, arXiv:2505.08775; the strategies are those of Savage et al. 2024,
        doi 10.1038/s41746-024-01010-1.
    Choice: criteria of structure instead of a judge: reproducible, offline, and cheap enough for every rollout.
    """
    if answer_text not in options:
        raise ValueError(f"adherence: the answer {answer_text!r} is not among the options {tuple(options)}")
    if not guideline.criteria:
        raise ValueError(f"adherence: guideline {guideline.name!r} has no criteria to be scored by")
    text = normal(thinking)
    found = mentions(text, options)
    end = conclusion(text, found) or Conclusion(frozenset(), len(text))
    answer = list(options).index(answer_text)
    evidence = Evidence(
        text[: end.end],
        len(words(text)),
        tuple(mention for mention in found if mention.end <= end.end),
        end.options,
        answer,
    )
    credits = {criterion.name: CREDIT[criterion.kind](evidence, criterion) for criterion in guideline.criteria}
    if end.options and answer not in end.options:
        return Adherence(0.0, credits, "contradiction")
    points = sum(criterion.weight * credits[criterion.name] for criterion in guideline.criteria)
    possible = sum(criterion.weight for criterion in guideline.criteria if criterion.weight > 0)
    return Adherence(min(1.0, max(0.0, points / possible)), credits)


def patterns(evidence: Evidence, criterion: Criterion) -> float:
    """Distinct phrases of a list that occur and are not denied within the three words before."""
    expression = phrase_pattern(criterion.phrases)
    kinds = {
        match.lastindex for match in expression.finditer(evidence.text) if not _denied(evidence.text, match.start())
    }
    return min(1.0, len(kinds) / criterion.at_least)


def candidates(evidence: Evidence, criterion: Criterion) -> float:
    """Distinct options that are weighed: named in a sentence for or against something, or concluded."""
    weighed = {mention.option for mention in evidence.mentions if mention.weighed or mention.rejected}
    return min(1.0, len(weighed | evidence.concluded) / criterion.at_least)


def rejected_with_reason(evidence: Evidence, criterion: Criterion) -> float:
    """Distinct options other than the answer that one sentence both rejects and gives a reason against."""
    rejected = {mention.option for mention in evidence.mentions if mention.reasoned}
    return min(1.0, len(rejected - {evidence.answer}) / criterion.at_least)


def causal_links(evidence: Evidence, criterion: Criterion) -> float:
    """Links such as "because" that are followed by at least two words before the next link, each content once."""
    text, links = evidence.text, list(LINK.finditer(evidence.text))
    ends = [*(link.start() for link in links[1:]), len(text)][: len(links)]
    content: set[tuple[str, ...]] = set()
    for link, end in zip(links, ends, strict=True):
        following = tuple(words(text[link.end() : min(end, link.end() + 120)])[:3])
        if NOT_BECAUSE.search(text[max(0, link.start() - 24) : link.start()]):
            continue
        if len(following) >= 2:
            content.add(following)
        elif len(following) == 1 and following[0] not in _linked(content) and end == len(text):
            content.add(following)  # "…, therefore enlarged."
    return min(1.0, len(content) / criterion.at_least)


def percentages(evidence: Evidence, criterion: Criterion) -> float:
    """Distinct percentages from 0 to 100."""
    values = {float(match.group(1)) for match in PERCENTAGE.finditer(evidence.text)}
    return min(1.0, len([value for value in values if value <= 100]) / criterion.at_least)


def consistent_update(evidence: Evidence, criterion: Criterion) -> float:
    """A prior percentage, then a posterior one, moved in the direction that the likelihood ratio and the words say."""
    text = evidence.text
    before = _percentage_after(text, PRIOR, first=True)
    after = _percentage_after(text, POSTERIOR, first=False)
    if before is None or after is None or before[0] >= after[0] or not 0 <= min(before[1], after[1]) <= 100:
        return 0.0
    between = text[before[0] : after[0]]
    ratio = 1.0
    for match in RATIO.finditer(between):
        ratio *= float(match.group(1))
    signs = [bool(UP.search(between)) - bool(DOWN.search(between)), (ratio > 1) - (ratio < 1)]
    moved = (after[1] > before[1]) - (after[1] < before[1])
    said = [sign for sign in signs if sign]
    return float(bool(said) and all(sign == moved for sign in said))


def direct(evidence: Evidence, criterion: Criterion) -> float:
    """From `at_least` words of finding straight to one option: no other option, causal link or percentage."""
    text = evidence.text
    named = {mention.option for mention in evidence.mentions}
    if len(named) != 1 or not evidence.concluded or LINK.search(text) or PERCENTAGE.search(text):
        return 0.0
    before = [word for word in words(text[: evidence.mentions[0].start]) if word not in ANNOUNCING]
    return float(len(before) >= criterion.at_least)


def max_words(evidence: Evidence, criterion: Criterion) -> float:
    """The whole reasoning has at most this many words."""
    return float(evidence.n_words <= criterion.at_most)


def min_words(evidence: Evidence, criterion: Criterion) -> float:
    """The reasoning's share of this many words."""
    return min(1.0, evidence.n_words / criterion.at_least)


CREDIT: dict[str, Callable[[Evidence, Criterion], float]] = {
    function.__name__: function
    for function in (
        patterns,
        candidates,
        rejected_with_reason,
        causal_links,
        percentages,
        consistent_update,
        direct,
        max_words,
        min_words,
    )
}
"""Kind of criterion -> its credit in [0, 1]; a test holds these to be the kinds that guideline files may name."""


@lru_cache(maxsize=256)
def phrase_pattern(phrases: tuple[str, ...]) -> re.Pattern[str]:
    """One expression with a group per phrase; phrases are literal, so that no file can bring a slow expression."""
    bodies = []
    for phrase in phrases:
        body = r"\s+".join(map(re.escape, normal(phrase).rstrip("*").split()))
        bodies.append(rf"({body}\w*)" if phrase.endswith("*") else rf"({body}(?!\w))")
    return re.compile(r"(?<!\w)(?:" + "|".join(bodies) + ")")


def _denied(text: str, start: int) -> bool:
    return bool(NEGATED.search(text[max(0, start - 40) : start]))


def _linked(content: set[tuple[str, ...]]) -> set[str]:
    return {item[0] for item in content}


def _percentage_after(text: str, name: re.Pattern[str], *, first: bool) -> tuple[int, float] | None:
    """(place, value) of the first percentage within 60 characters behind the first or last such name."""
    found = None
    for match in name.finditer(text):
        number = PERCENTAGE.search(text, match.end(), match.end() + 60)
        if number:
            found = (number.start(), float(number.group(1)))
            if first:
                break
    return found
