"""What is to be seen in an example's picture, taken from its worked reasoning, and how much of it a reasoning states.

Worked traces of one example argue in different ways about the same findings. So what most of them share, and the
prompt does not say, is what was seen: "ratio 0.56", "viewer left blunt". A template that never looked cannot know it.

Limits: with a single trace, or traces without a common wording, single words stand for findings, and common words of
the field are guessed easily. A finding in other words is not recognised. Whether a finding matters is not seen.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from lightning_modules.rewards.reading import Mention, normal, sentences, words

SEGMENT_END = re.compile(
    r"[!?;:\n]|[.,](?!\d)|\b(?:because|since|therefore|thus|hence|which|but|although|whereas|while)\b"
)
NUMBER = re.compile(r"\d+(?:\.\d+)?")
TOLERANCE = 0.05
"""A number is read right within this share of it: an angle of 57 within 2.85 degrees, a count below 20 only exactly."""
MOST_FINDINGS = 32
LONGEST = 5
"""Words and numbers of a segment that is one finding; nobody repeats a longer one as it stands."""
SPARE_NUMBERS, SPARE_WORDS = 2, 12
"""How much a segment may hold besides the finding that it states; more is a list of guesses."""
CUT_OFFS = 2.0
"""A number in a reason is about the picture if it is within this factor of one that was measured there."""
PROBABILITY = re.compile(r"\b(?:likelihoods?|lr|odds|prior|posterior|pre-?test|post-?test|prevalence|probability)\b")
"""Numbers beside these are no readings."""
NEGATIONS = frozenset("no not without never neither nor".split())
UNITS = frozenset("mm cm ml degree hu percent year day hour week month".split())
GENERIC = frozenset(
    # words that any text has
    "a an the of in on at to by for with from as is are was were be been being it its this that these those there "
    "then than and or but so if we i you he she they our one two here has have had do does did will would can "
    "could may might must should which who what when where how why because since therefore thus hence means mean "
    "due given though while also just only both all any each other another such very more most less least much "
    "many some few too well now into over under out up down about between within above below after before through "
    "against per still yet however "
    # words that any reasoning has
    "answer option choice conclusion verdict final diagnosis case image picture scan film show see seen look find "
    "finding fit support supported suggest suggests indicate likely unlikely exclude excluded rule ruled reject "
    "rejected possible probable consistent compatible typical classic characteristic pattern evidence need needs "
    "require expect explain versus vs differential candidate consider considered prior posterior likelihood odd "
    "probability rise raise lr update updated pretest posttest strong modest lead cause result make made think "
    "know patient question".split()
)
"""Words that are no findings; plurals need no entry."""
Content = frozenset[str | float]


@dataclass(frozen=True)
class Finding:
    """One thing to be seen.

    Attributes:
        words: its words without units; with numbers these are their label.
        numbers: its numbers, sorted.
        denied: it says that something is absent.
    """

    words: frozenset[str]
    numbers: tuple[float, ...]
    denied: bool


@dataclass(frozen=True)
class Reference:
    """What an example's worked traces say of it.

    Attributes:
        findings: what most traces share and the prompt does not say.
        vocabulary: every word and number of any trace that neither the prompt nor everyday reasoning has.
        segments: the contents of the traces' segments.
    """

    findings: tuple[Finding, ...]
    vocabulary: frozenset[str | float]
    segments: frozenset[Content]


@lru_cache(maxsize=4096)
def reference(traces: tuple[str, ...], prompt: str) -> Reference | None:
    """Collect what worked traces know of their example.

    Args:
        traces: the example's worked reasoning, one text per strategy.
        prompt: question, options and instruction, whose words are no findings.

    Returns:
        None where there are no traces, or nothing in them that the prompt does not say.

    Choice: "most" is more than half. Where the traces share no short segment, the words that most share are taken, and
        with one trace alone its segments that hold a number, or else its words.
    """
    known = content(words(normal(prompt)))
    said = [[content(words(text[a:b])) for a, b in segments(text)] for text in map(normal, traces)]
    vocabulary = frozenset(token for trace in said for held in trace for token in held - known - NEGATIONS)
    if not vocabulary:
        return None
    shared = _most({held for held in trace if held & vocabulary and len(held) <= LONGEST} for trace in said)
    if len(said) == 1:
        shared = [held for held in shared if any(isinstance(token, float) for token in held)]
    if not shared:
        singles = ({token for held in trace for token in held & vocabulary} for trace in said)
        shared = [frozenset([token]) for token in _most(singles)]
    found = tuple(map(_finding, shared[:MOST_FINDINGS]))
    return Reference(found, vocabulary, frozenset(held for trace in said for held in trace))


def grounding(text: str, mentions: Sequence[Mention], known: Reference, at_least: int) -> float:
    """How far a reasoning states what is to be seen, in [0, 1].

        credit = min(1, stated / min(at_least, findings)) · stated / (stated + misread)

    Sentences that reject an option are passed over, since they speak of what is not there, and so are probabilities.
    Misread is a segment that names a finding's label with another value, which no worked trace says either; so it does
    not help to list all values.

    Args:
        text: the reasoning's normal text.
        mentions: options that it names.
        known: the example's findings.
        at_least: findings for full credit.
    """
    pieces = dict.fromkeys(text[a:b] for a, b in _kept(text, mentions))
    held = list(dict.fromkeys(content(words(piece)) for piece in pieces))
    stated = [finding for finding in known.findings if any(states(item, finding) for item in held)]
    right = {item for item in held if any(states(item, finding) for finding in known.findings)}
    misread = {
        item
        for item in held
        if item not in right and not _said(item, known) and any(misreads(item, f, known) for f in known.findings)
    }
    if not stated:
        return 0.0
    enough = min(at_least, len(known.findings))
    return min(1.0, len(stated) / enough) * len(stated) / (len(stated) + len(misread))


def speaks_of(text: str, known: Reference | None) -> bool:
    """Whether a normal text is about the example; True where there are no worked traces to tell.

    It has to hold a word or number that only they have, or a number of the size of what was measured: a cut-off.
    """
    if known is None:
        return True
    held = content(words(text))
    measured = [value for finding in known.findings for value in finding.numbers]
    numbers = [token for token in held if isinstance(token, float)]
    near = any(a / CUT_OFFS <= b <= a * CUT_OFFS for a in measured for b in numbers[:8] if b > 0)
    return near or bool(held & known.vocabulary)


def content(said: Iterable[str]) -> Content:
    """Numbers, and words that carry something, in a form that does not depend on the plural."""
    tokens: set[str | float] = set()
    for word in said:
        if NUMBER.match(word):
            tokens.add(float(word.rstrip("%")))
            continue
        stem = word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word
        if word in NEGATIONS or (len(word) > 1 and word not in GENERIC and stem not in GENERIC):
            tokens.add(stem)
    return frozenset(tokens)


def segments(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of the pieces between punctuation marks and conjunctions; a point inside a number ends none."""
    start = 0
    for match in SEGMENT_END.finditer(text):
        yield start, match.start()
        start = match.end()
    yield start, len(text)


def states(held: Content, finding: Finding) -> bool:
    """Whether a segment's content is this finding and little else."""
    numbers = [token for token in held if isinstance(token, float)]
    if (len(numbers) > len(finding.numbers) + SPARE_NUMBERS) or len(held) > len(finding.words) + SPARE_WORDS:
        return False
    if finding.denied != bool(held & NEGATIONS) or not all(_near(value, numbers) for value in finding.numbers):
        return False
    return bool(held & finding.words) if finding.numbers and finding.words else held >= finding.words


def misreads(held: Content, finding: Finding, known: Reference) -> bool:
    """Whether a segment's content gives a finding's label another value."""
    numbers = [token for token in held if isinstance(token, float)]
    if finding.numbers:
        return bool(held & finding.words) and any(value not in known.vocabulary for value in numbers)
    return len(finding.words) >= 3 and len(held & finding.words) == len(finding.words) - 1


def _finding(held: Content) -> Finding:
    numbers = tuple(sorted(token for token in held if isinstance(token, float)))
    named = frozenset(token for token in held if isinstance(token, str)) - UNITS - NEGATIONS
    return Finding(named, numbers, bool(held & NEGATIONS))


def _most(sets: Iterable[Collection]) -> list:
    """What is in more than half of the sets, in a fixed order."""
    counts: Counter = Counter()
    total = 0
    for items in sets:
        counts.update(items)
        total += 1
    return sorted((item for item, count in counts.items() if 2 * count > total), key=_order)


def _order(item: object) -> str:
    return str(sorted(map(str, item)) if isinstance(item, frozenset) else item)


def _near(value: float, numbers: Iterable[float]) -> bool:
    return any(abs(value - number) <= TOLERANCE * value for number in numbers)


def _said(held: Content, known: Reference) -> bool:
    """Whether a worked trace has this segment too, perhaps with more around it."""
    return held in known.segments


def _kept(text: str, mentions: Sequence[Mention]) -> Iterator[tuple[int, int]]:
    """Segments of the sentences that reject no option, without those on probabilities."""
    rejecting = [mention.start for mention in mentions if mention.rejected]
    place = 0
    for start, end in sentences(text):
        while place < len(rejecting) and rejecting[place] < start:
            place += 1
        if place < len(rejecting) and rejecting[place] < end:
            continue
        for a, b in segments(text[start:end]):
            if not PROBABILITY.search(text, start + a, start + b):
                yield start + a, start + b
