"""Criteria of reasoning by probability: percentages, and an update that follows from what is said."""

from __future__ import annotations

import re

from lightning_modules.rewards.evidence import Evidence
from lightning_modules.rewards.guidelines import Criterion

PERCENTAGE = re.compile(r"(?<![\d.])(\d{1,3}(?:\.\d{1,6})?)\s?(?:%|percent\b|per cent\b)")
PRIOR = re.compile(r"\b(?:prior|pre-?test|base rate|baseline|prevalence)\b")
POSTERIOR = re.compile(r"\b(?:posterior|post-?test|updated|revised|afterwards|now)\b")
RATIO = re.compile(r"\b(?:likelihood ratio|lr)\b\D{0,12}(\d{1,6}(?:\.\d{1,6})?)")
LIKELIHOODS = re.compile(
    r"\blikelihoods? (\d{1,3}(?:\.\d{1,6})?)\s?% (?:against|over|versus|vs) (\d{1,3}(?:\.\d{1,6})?)\s?%"
)
UP = re.compile(r"\b(?:up|upwards?|raises?|raised|rises?|increases?|increased|higher|climbs?)\b")
DOWN = re.compile(r"\b(?:down|downwards?|lowers?|lowered|falls?|drops?|decreases?|decreased|reduces?)\b")
ROUNDING = 5.0
"""Percentage points by which a posterior may miss Bayes' rule: reasoning rounds."""
WRONG_SIZE = 0.5
"""Credit of an update that goes the right way by the wrong amount."""


def percentages(evidence: Evidence, criterion: Criterion) -> float:
    """Distinct percentages from 0 to 100."""
    values = {float(match.group(1)) for match in PERCENTAGE.finditer(evidence.text)}
    return min(1.0, len([value for value in values if value <= 100]) / criterion.at_least)


def consistent_update(evidence: Evidence, criterion: Criterion) -> float:
    """A prior percentage, then a posterior one that follows from it.

    It has to move in the direction that the likelihood ratio and the words say. Where a ratio is given, it has to move
    by as much as Bayes' rule says, or earns half.
    """
    text = evidence.text
    before = _percentage_after(text, PRIOR, first=True)
    after = _percentage_after(text, POSTERIOR, first=False)
    if before is None or after is None or before[0] >= after[0] or not 0 <= min(before[1], after[1]) <= 100:
        return 0.0
    between = text[before[0] : after[0]]
    ratio = _ratio(between)
    signs = [bool(UP.search(between)) - bool(DOWN.search(between)), ((ratio or 1) > 1) - ((ratio or 1) < 1)]
    moved = (after[1] > before[1]) - (after[1] < before[1])
    said = [sign for sign in signs if sign]
    if not said or any(sign != moved for sign in said):
        return 0.0
    return 1.0 if ratio is None or abs(_bayes(before[1], ratio) - after[1]) <= ROUNDING else WRONG_SIZE


def _ratio(text: str) -> float | None:
    """Product of the likelihood ratios that a text gives; None if it gives none."""
    given = [float(match.group(1)) for match in RATIO.finditer(text)]
    given += [float(m.group(1)) / float(m.group(2)) for m in LIKELIHOODS.finditer(text) if float(m.group(2)) > 0]
    product = 1.0
    for value in given:
        product *= min(value, 1e6)
    return min(product, 1e12) if given else None


def _bayes(prior: float, ratio: float) -> float:
    """Posterior in percent."""
    odds = ratio * prior / max(100.0 - prior, 1e-9)
    return 100 * odds / (1 + odds)


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
