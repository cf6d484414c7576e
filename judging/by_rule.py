"""Reasoning about a generated case, held against what its generator knows.

Findings are read by their names and values; steps by the generator's own sentences: those that it writes for a case
with the findings *as stated* follow, those that it writes for other cases only are wrong, all others are not read.

Choice: this is no use of `rewards.findings.grounding`, which is made from worked traces of any data set, takes 5 % of a
    number, and is what reinforcement learning is paid by: an examiner that is the reward could not see it be gamed.
    What a sentence, a mention, a conclusion and a contradiction are is shared with it.
Limit: a model that argues in other words than the generator's is read for findings and conclusion alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache

from datamodules.phantoms.base import likelihood_ratio
from datamodules.phantoms.truth import Truth, Value
from evaluation.answers import LETTERS, extract, thinking_of
from evaluation.predictions import Prediction
from evaluation.scorers import main_outcome
from judging.reasoning import Reasoning
from lightning_modules.rewards.adherence import ANNOUNCING
from lightning_modules.rewards.evidence import Evidence, read_evidence
from lightning_modules.rewards.findings import NUMBER, content, segments
from lightning_modules.rewards.guidelines import Criterion
from lightning_modules.rewards.probabilities import PERCENTAGE, POSTERIOR, PRIOR, consistent_update
from lightning_modules.rewards.reading import normal, option_pattern, sentences, words
from lightning_modules.rewards.verdict import contradicts

Step = tuple[str | float, ...]
"""The words of a piece of a sentence, its numbers as numbers."""
RATIOS = tuple(float(likelihood_ratio(clear)) for clear in (False, True))
EITHER = "4 or 18"
"""Stands in a step for one of `RATIOS`."""
STRENGTHS = (("strong", "rise"), ("modest", "rise"))
MOVES = Criterion("moves_as_said", "consistent_update")


def read_by_rule(prediction: Prediction, truth: Truth, bodies: frozenset[str]) -> Reasoning:
    """Read an answer's reasoning.

    Args:
        prediction: to a question with options.
        truth: of that question.
        bodies: other arguments in the words of its set.
    """
    options = prediction.options
    letter = extract(prediction.completion, options).letter
    answer = LETTERS.index(letter) if letter else -1
    thinking = thinking_of(prediction.completion)
    evidence = read_evidence(thinking, options, answer, None)
    spoken = list(stated(evidence, truth))
    said = list(dict.fromkeys(spoken))  # a loop states nothing new
    following = follows(evidence, dict(spoken), truth, options, bodies)
    true = {name: True for name in truth.needed if any(name == one for one, _ in said)}
    named = []
    for name, value in said:
        named.append(truth.sayings[name].agrees(value, truth.findings[name]))
        true[name] = true.get(name, True) and named[-1]
    return Reasoning(
        right=main_outcome(prediction).right,
        named=tuple(named),
        needed=tuple(true.get(name, False) for name in truth.needed),
        follows=following,
        agrees=answer in evidence.concluded and not contradicts(normal(thinking), options, answer),
        unread=following is None,
    )


def stated(evidence: Evidence, truth: Truth) -> Iterator[tuple[str, Value]]:
    """Each statement of a finding, in the order of the text; a sentence against an option says what is not there."""
    found = []
    for start, end in kept_sentences(evidence):
        for name, finding in truth.sayings.items():
            for pattern, value in finding.sayings.items():
                for match in re.finditer(pattern, evidence.text[start:end]):
                    found.append((start + match.start(), name, finding.means(value or match.group(1))))
    yield from ((name, value) for _, name, value in sorted(found, key=lambda one: one[0]))


def kept_sentences(evidence: Evidence) -> Iterator[tuple[int, int]]:
    """(start, end) of the sentences that reject no option."""
    rejecting = [mention.start for mention in evidence.mentions if mention.rejected]
    for start, end in sentences(evidence.text):
        if not any(start <= place < end for place in rejecting):
            yield start, end


def follows(
    evidence: Evidence, said: Mapping[str, Value], truth: Truth, options: Collection[str], bodies: frozenset[str]
) -> bool | None:
    """Whether the steps fit the findings as stated, and the rule makes of these what is concluded.

    Args:
        evidence: the reasoning.
        said: finding -> the value that was stated last.
        truth: of the question.
        options: as shown.
        bodies: other arguments in the words of its set.

    Returns:
        None where a step is not read and none is wrong.
    """
    argument = truth.argue(said)
    if argument is None:
        return False
    fits = [list(options)[option] for option in evidence.concluded] == [argument.answer]
    steps = set(steps_of(evidence, truth, tuple(options)))
    strange = steps - steps_among(argument.bodies)
    if any(shape(step) in shapes_among(bodies) for step in strange) or not moves_as_said(evidence):
        return False
    if not fits and (not strange or set(truth.needed) <= set(said)):
        return False
    return None if strange else True


def steps_of(evidence: Evidence, truth: Truth, options: tuple[str, ...]) -> Iterator[Step]:
    """What a reasoning says besides findings and conclusion, piece by piece."""
    for start, end in segments(evidence.text):
        piece = evidence.text[start:end]
        matches = (m for finding in truth.sayings.values() for p in finding.sayings for m in re.finditer(p, piece))
        taken = {place for match in matches for place in range(*match.span())}  # "lens rim 12 mm" is two statements
        rest = "".join(" " if place in taken else letter for place, letter in enumerate(piece))
        announced = option_pattern(options)[0].sub(" ", rest)
        if content(words(rest)) and not set(words(announced)) <= ANNOUNCING:
            yield step(piece)


def step(piece: str) -> Step:
    """A piece of normal text as a step.

    Choice: how strong a specialty's evidence is (a likelihood ratio of 18 or 4, a strong or modest rise) hangs on more
        than the findings tell, so either will do; that the posterior is the one of prior and ratio is `moves_as_said`.
    """
    said = tuple(float(word.rstrip("%")) if NUMBER.match(word) else word for word in words(piece))
    if said[:1] == ("posterior",):
        return said[:1]
    if said in STRENGTHS:
        return said[1:]
    if "likelihood" in said:
        return tuple(EITHER if value in RATIOS else value for value in said)
    return said


def shape(one: Step) -> Step:
    """A step without its numbers."""
    return tuple("#" if isinstance(word, float) or word == EITHER else word for word in one)


@lru_cache(maxsize=4096)
def steps_among(bodies: frozenset[str]) -> frozenset[Step]:
    """The steps of arguments."""
    texts = map(normal, bodies)
    return frozenset(step(text[start:end]) for text in texts for start, end in segments(text))


@lru_cache(maxsize=16)
def shapes_among(bodies: frozenset[str]) -> frozenset[Step]:
    """The same without their numbers."""
    return frozenset(map(shape, steps_among(bodies)))


def moves_as_said(evidence: Evidence) -> bool:
    """Whether a posterior that is given follows from the prior that is."""
    given = all(name.search(evidence.text) for name in (PRIOR, POSTERIOR))
    if not given or len(PERCENTAGE.findall(evidence.text)) < 2:
        return True
    return consistent_update(evidence, MOVES) == 1.0
