"""Which of the four specialties a question belongs to: by rules in a file, or by asking; and how far the two agree."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from curation.teachers import Request
from datamodules.batch import Example
from datamodules.mmedexpert import SPECIALTIES
from datamodules.prompts import question_text
from evaluation.answers import extract
from lightning_modules.rewards.adherence import phrase_pattern
from lightning_modules.rewards.reading import normal

UNASSIGNED = "unassigned"
PHRASE = re.compile(r"\w[^*]*\*?")


@dataclass(frozen=True)
class Rule:
    """What speaks for one specialty.

    Attributes:
        specialty: one of the four.
        describes: what it covers, in words; what a classifier is told.
        phrases: lower-case words and phrases, matched whole; `*` at the end of one matches any ending.
        tags: tag -> values that speak for it, in any case.
    """

    specialty: str
    describes: str
    phrases: tuple[str, ...] = ()
    tags: Mapping[str, tuple[str, ...]] | None = None


@dataclass(frozen=True)
class Assigned:
    """A question's specialty and why.

    Attributes:
        specialty: one of the four, or "unassigned".
        why: the phrases and tags that spoke for it.
    """

    specialty: str
    why: tuple[str, ...] = ()


def load_rules(path: Path) -> tuple[list[Rule], int]:
    """Read the rules; the order of the file breaks ties.

    Returns:
        The rules, and the points of a tag (a phrase has one).

    Raises:
        ValueError: a specialty is unknown, or a key or value is wrong.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(content, dict) or set(content) != {"tag_points", "specialties"}:
        raise ValueError(f"{path}: expected the keys tag_points and specialties")
    points, entries = content["tag_points"], content["specialties"]
    if type(points) is not int or points < 1:
        raise ValueError(f"{path}: tag_points must be a whole number of at least 1, got {points!r}")
    if not isinstance(entries, dict) or not entries or not set(entries) <= set(SPECIALTIES):
        raise ValueError(f"{path}: specialties must be some of {', '.join(SPECIALTIES)}, got {entries!r:.200}")
    return [rule_of(path, name, entry) for name, entry in entries.items()], points


def rule_of(path: Path, name: str, entry: Any) -> Rule:
    """One specialty's entry; errors as of `load_rules`."""
    where = f"{path}: specialties.{name}"
    if not isinstance(entry, dict) or not set(entry) <= {"describes", "phrases", "tags"} or "describes" not in entry:
        raise ValueError(f"{where}: expected describes, and phrases or tags")
    phrases, tags = entry.get("phrases") or [], entry.get("tags") or {}
    bad = [phrase for phrase in phrases if not isinstance(phrase, str) or not PHRASE.fullmatch(phrase)]
    if not isinstance(phrases, list) or bad:
        raise ValueError(f"{where}.phrases: expected texts that begin with a letter or digit, got {(bad or phrases)!r}")
    good = isinstance(tags, dict) and all(isinstance(values, list) for values in tags.values())
    if not good or not (phrases or tags):
        raise ValueError(f"{where}: expected phrases, or tags with lists of values, got {tags!r}")
    values = {str(tag): tuple(normal(str(value)) for value in held) for tag, held in tags.items()}
    return Rule(name, str(entry["describes"]), tuple(phrase.casefold() for phrase in phrases), values)


def assign(example: Example, tags: Mapping[str, str], rules: Sequence[Rule], tag_points: int) -> Assigned:
    """The specialty with most points: one per phrase that occurs in question or options, `tag_points` per tag.

    Args:
        example: the question.
        tags: its tags, and what the pool adds to them.
        rules: in the order that breaks ties.
        tag_points: see above.

    Choice: the paper names the four specialties, but not how questions came to them. Points and word lists are ours.
    """
    text = normal(question_text(example))
    best, most = Assigned(UNASSIGNED), 0
    for rule in rules:
        words = {match.lastindex for match in phrase_pattern(rule.phrases).finditer(text)} if rule.phrases else set()
        found = [rule.phrases[index - 1] for index in sorted(words)]
        by_tag = [f"{tag}={tags[tag]}" for tag, held in (rule.tags or {}).items() if normal(tags.get(tag, "")) in held]
        points = len(found) + tag_points * len(by_tag)
        if points > most:
            best, most = Assigned(rule.specialty, (*by_tag, *found)), points
    return best


def classification(row: str, example: Example, pictures: tuple[str, ...], rules: Sequence[Rule]) -> Request:
    """The question which specialty a question belongs to, as one more multiple-choice question."""
    question = f"To which specialty does the following examination question belong?\n\n{question_text(example)}"
    asked = Example(
        patient_id=example.patient_id,
        images=example.images,
        question=question,
        options=tuple(rule.describes for rule in rules),
        answer=rules[0].describes,  # an Example must have one; it is shown to nobody
        question_id=example.question_id,
    )
    return Request(row, asked, pictures)


def classified(text: str, rules: Sequence[Rule]) -> str:
    """The specialty that a classifier's reply names; "unassigned" where none can be read."""
    said = text.rpartition("</think>")[2]  # a reasoning weighs specialties before it names one
    letter = extract(said, [rule.describes for rule in rules], "lenient").letter
    return rules["ABCDEFGHIJ".index(letter)].specialty if letter else UNASSIGNED


def cohens_kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Agreement of two raters beyond chance.

        kappa = (p_o - p_e) / (1 - p_e)

    Args:
        pairs: (first rater's label, second rater's label) per item.

    Returns:
        In [-1, 1]; None where there is no pair, or both raters know one and the same label only.

    Source: Cohen, Educational and Psychological Measurement 1960;20:37-46.
    """
    n = len(pairs)
    if not n:
        return None
    first, second = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    observed = sum(a == b for a, b in pairs) / n
    expected = sum(first[label] * second[label] for label in first) / n**2
    return None if expected == 1 else (observed - expected) / (1 - expected)
