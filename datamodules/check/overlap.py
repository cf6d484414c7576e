"""What training would see of an examination: the same question, the same picture, or one that looks the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from datamodules.check.audit import Audit, Item, digest, normal_text
from datamodules.pictures import bit_count

NEAR = 10
"""Bits of 256 by which two difference hashes may differ and still count as looking the same.

Measured on 150 patients of each phantom specialty: pictures of two patients differ in at least 11 bits; the same
picture as a JPEG of quality 50 differs in 4 to 7 at the median and at most 13, enlarged twice in 3 to 5 and at most 15.
"""
FLAT = 16
"""A picture with fewer set bits has too little structure for its look to say anything."""
LONG = 20
"""Words from which an equal stem is the same question; shorter ones may be templates ("What modality is this?")."""
KINDS = ("image", "text", "template", "short_text", "look")
"""Of overlaps, in the order in which they are told."""
BLOCK = 2**22
"""Comparisons of looks held in memory at once."""


@dataclass(frozen=True)
class Overlap:
    """Training questions that meet questions of one examined split.

    Attributes:
        kind: "image" (equal pixels), "text" (equal long stems), "template" (the same of `templates`), "short_text"
            (equal question and options without pictures, the stem below `LONG` words), or "look".
        train: specialty/split that is trained on.
        examined: specialty/split that is examined.
        questions: examined questions concerned.
        pairs: (training question id, examined question id), the first ten.
    """

    kind: str
    train: str
    examined: str
    questions: int
    pairs: tuple[tuple[str, str], ...]

    @property
    def forbids(self) -> bool:
        """Whether training may not start.

        Looks alike may be two patients, a template or a short text may be another question, and a validation split is
        not the score.
        """
        return self.kind in ("image", "text") and self.examined.endswith("/test")

    def __str__(self) -> str:
        """One line for a terminal."""
        what = {
            "image": "a picture of",
            "text": "the text of",
            "template": "the text, asked of several pictures, of",
            "short_text": "the short text of",
        }
        shown = what.get(self.kind, "a picture that looks like one of")
        first = " and ".join(self.pairs[0])
        return f"{self.train} holds {shown} {self.questions} questions of {self.examined}, such as {first}"


def overlaps(audits: Sequence[Audit]) -> list[Overlap]:
    """Every overlap between a training split and any set's test or validation split, its own included."""
    found = []
    for trained in audits:
        train = trained.items.get("train", ())
        if not train:
            continue
        with_picture, with_text = by_picture(train), by_text(train)
        repeated = templates(train)
        for other in audits:
            for split in ("test", "val"):
                examined = other.items.get(split, ())
                of_many = repeated | templates(examined)
                pairs: dict[str, list[tuple[str, str]]] = {kind: [] for kind in KINDS}
                for item in examined:
                    name = item.example.question_id
                    pairs["image"] += [
                        (name_of(train, with_picture[p.key]), name) for p in item.pictures if p.key in with_picture
                    ]
                    if (key := text_key(item)) in with_text:
                        kind = "short_text" if not is_long(item) else "template" if key in of_many else "text"
                        pairs[kind].append((name_of(train, with_text[key]), name))
                pairs["look"] += alike(train, examined)
                names = (f"{trained.name}/train", f"{other.name}/{split}")
                found += [summary(kind, *names, held) for kind, held in pairs.items() if held]
    return found


def summary(kind: str, train: str, examined: str, pairs: Sequence[tuple[str, str]]) -> Overlap:
    """Pairs of questions, by their ids, as one finding."""
    return Overlap(kind, train, examined, len({b for _, b in pairs}), tuple(dict.fromkeys(pairs))[:10])


def name_of(items: Sequence[Item], number: int) -> str:
    """The id of a question."""
    return items[number].example.question_id


def by_picture(items: Sequence[Item]) -> dict[str, int]:
    """Key of each usable picture -> the number of the first question about it."""
    found: dict[str, int] = {}
    for number, item in enumerate(items):
        for picture in item.pictures:
            if not picture.trouble:
                found.setdefault(picture.key, number)
    return found


def by_text(items: Sequence[Item]) -> dict[bytes, int]:
    """`text_key` -> the number of its first question."""
    found: dict[bytes, int] = {}
    for number, item in enumerate(items):
        if key := text_key(item):
            found.setdefault(key, number)
    return found


def text_key(item: Item) -> bytes:
    """Hash of what two questions must share to be the same by their words; empty where words do not tell.

    Long stems do by themselves, since the same case may be asked with other options or another picture; short ones with
    their options, and only without pictures.
    """
    text = normal_text(item.example.question) if is_long(item) else "" if item.pictures else item.text
    return digest(text) if text else b""


def templates(items: Sequence[Item]) -> set[bytes]:
    """Keys of long stems that are asked of several pictures with several right answers, as no single case is."""
    first: dict[bytes, tuple[bytes, bytes]] = {}
    several: tuple[set[bytes], set[bytes]] = (set(), set())  # keys with several pictures; with several answers
    for item in items:
        if is_long(item):
            key = text_key(item)
            asked = (digest(*(picture.key for picture in item.pictures)), digest(normal_text(item.example.answer)))
            held = first.setdefault(key, asked)
            for one, other, found in zip(asked, held, several, strict=True):
                if one != other:
                    found.add(key)
    return several[0] & several[1]


def is_long(item: Item) -> bool:
    """Whether the stem is too long for a template."""
    return len(item.example.question.split()) >= LONG


def alike(train: Sequence[Item], examined: Sequence[Item]) -> Iterator[tuple[str, str]]:
    """Ids of questions with pictures that look the same without being equal; one pair per examined picture."""
    ours, theirs = looks(train), looks(examined)
    if not ours or not theirs:
        return
    held = np.stack([look for _, _, look in ours])
    step = max(1, BLOCK // len(held))
    for first in range(0, len(theirs), step):
        block = theirs[first : first + step]
        distance = bit_count(held[None] ^ np.stack([look for _, _, look in block])[:, None])
        for row, (key, name, _) in enumerate(block):
            near = [ours[i] for i in np.flatnonzero(distance[row] <= NEAR)]
            if near and not any(other == key for other, _, _ in near):
                yield near[0][1], name


def looks(items: Sequence[Item]) -> list[tuple[str, str, np.ndarray]]:
    """(key, id of a question, look) of every distinct picture with enough structure."""
    found: dict[str, tuple[str, str, np.ndarray]] = {}
    for item in items:
        for picture in item.pictures:
            if picture.look is not None and picture.key not in found and bit_count(picture.look) >= FLAT:
                found[picture.key] = (picture.key, item.example.question_id, picture.look)
    return list(found.values())


def shared_patients(items: Mapping[str, Sequence[Item]]) -> list[tuple[str, str, str]]:
    """(patient, split, split) of patients in two splits of one set."""
    first: dict[str, str] = {}
    more: dict[str, set[str]] = {}
    for split, held in items.items():
        for item in held:
            patient = item.example.patient_id
            if first.setdefault(patient, split) != split:
                more.setdefault(patient, {first[patient]}).add(split)
    return [(patient, *sorted(splits)[:2]) for patient, splits in sorted(more.items())]
