"""Criteria that ask for reasons: links such as "because", and rejections with a reason."""

from __future__ import annotations

import re

from lightning_modules.rewards.evidence import Evidence
from lightning_modules.rewards.findings import speaks_of
from lightning_modules.rewards.guidelines import Criterion
from lightning_modules.rewards.reading import REASON, sentences, words

LINK = re.compile(
    r"\b(?:because|since|therefore|thus|hence|consequently|accordingly|which means|this means|meaning that|means that|"
    r"which implies|this implies|implies that|leads? to|leading to|results? in|resulting in|causes?|causing|caused by|"
    r"due to|owing to|as a result|which explains|explains why|produc(?:es|ing)|so that|"
    r"which (?:makes|raises|lowers|allows|prevents))\b"
)
NOT_BECAUSE = re.compile(r"\b(?:not|never|neither|nor|\w+n't)\s+(?:simply\s+|merely\s+|just\s+|only\s+)?$")
UNGROUNDED = 0.25
"""Credit of a reason that shares no word or number with the example's worked reasoning: it may be right in other words,
but nothing shows that it is about this picture."""


def causal_links(evidence: Evidence, criterion: Criterion) -> float:
    """Links such as "because" that are followed by at least two words before the next link, each content once.

    A last link that leads to an option needs no finding if another link has one.
    """
    text, links = evidence.text, list(LINK.finditer(evidence.text))
    ends = [*(link.start() for link in links[1:]), len(text)][: len(links)]
    places, place = [mention.start for mention in evidence.mentions], 0
    content: dict[tuple[str, ...], str] = {}
    first_words: set[str] = set()
    for link, end in zip(links, ends, strict=True):
        piece = text[link.end() : min(end, link.end() + 120)]
        following = tuple(words(piece)[:3])
        while place < len(places) and places[place] < link.end():
            place += 1
        if NOT_BECAUSE.search(text[max(0, link.start() - 24) : link.start()]):
            continue
        # "therefore enlarged." ends a chain in one word
        last_word = len(following) == 1 and following[0] not in first_words and end == len(text)
        if len(following) >= 2 or last_word:
            names_option = place < len(places) and places[place] < link.end() + len(piece)
            about = speaks_of(piece, evidence.reference)
            content.setdefault(following, "finding" if about else "option" if names_option else "nothing")
            first_words.add(following[0])
    kinds = list(content.values())
    grounded = kinds.count("finding") + (min(1, kinds.count("option")) if "finding" in kinds else 0)
    return min(1.0, (grounded + UNGROUNDED * (len(kinds) - grounded)) / criterion.at_least)


def rejected_with_reason(evidence: Evidence, criterion: Criterion) -> float:
    """Distinct options other than the answer that one sentence both rejects and gives a reason against."""
    credit: dict[int, float] = {}
    reasoned = [mention for mention in evidence.mentions if mention.reasoned and mention.option != evidence.answer]
    place = 0
    for start, end in sentences(evidence.text) if reasoned else ():
        about: bool | None = None  # looked up once per sentence, and only where an option is rejected
        while place < len(reasoned) and reasoned[place].start < end:
            if about is None:
                reason = REASON.search(evidence.text, start, end)
                about = reason is not None and speaks_of(evidence.text[reason.end() - 1 : end], evidence.reference)
            option = reasoned[place].option
            credit[option] = max(credit.get(option, 0.0), 1.0 if about else UNGROUNDED)
            place += 1
    return min(1.0, sum(credit.values()) / criterion.at_least)
