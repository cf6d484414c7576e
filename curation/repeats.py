"""What a pool holds twice, what it shares with an examination, and which patients are really one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from datamodules.check.audit import Item, normal_text
from datamodules.check.overlap import BLOCK, FLAT, NEAR, by_picture, by_text, looks, text_key
from datamodules.pictures import bit_count

Reason = tuple[str, str]
"""Why a row goes, as a word to count and as a sentence's rest."""


def repeated(items: Mapping[str, Item]) -> dict[str, Reason]:
    """Rows that ask what another row asks: same question and options about equal or equally looking pictures.

    The first stays; where the answers differ, none does.

    Args:
        items: row id -> question, in the order that decides which is the first.
    """
    by_text: dict[str, list[str]] = {}
    for row, item in items.items():
        by_text.setdefault(item.text, []).append(row)
    found: dict[str, Reason] = {}
    for rows in (group for same in by_text.values() for group in same_questions(same, items) if len(group) > 1):
        if len({normal_text(items[row].example.answer) for row in rows}) > 1:
            found.update({row: ("contradiction", f"the same question with another answer: {rows}") for row in rows})
        else:
            found.update({row: ("duplicate", f"of {rows[0]}") for row in rows[1:]})
    return found


def same_questions(rows: Sequence[str], items: Mapping[str, Item]) -> list[list[str]]:
    """Rows of one text in groups of equal or equally looking pictures; each is compared with the groups' first rows."""
    blank = np.zeros(4, dtype=np.uint64)
    first_looks = [next((p.look for p in items[row].pictures[:1] if p.look is not None), blank) for row in rows]
    heads, leaders = np.stack(first_looks), []
    leading = np.empty_like(heads)
    groups: dict[int, list[str]] = {}
    leader_of: dict[tuple[str, ...], int] = {}
    for place, row in enumerate(rows):
        keys = tuple(picture.key for picture in items[row].pictures)
        if keys not in leader_of:
            close = np.flatnonzero(bit_count(leading[: len(leaders)] ^ heads[place]) <= NEAR)
            alike = (leaders[i] for i in close if same_pictures(items[rows[leaders[i]]], items[row]))
            leader_of[keys] = next(alike, place)
            if leader_of[keys] == place:
                leading[len(leaders)] = heads[place]
                leaders.append(place)
        groups.setdefault(leader_of[keys], []).append(row)
    return list(groups.values())


def same_pictures(first: Item, second: Item) -> bool:
    """Whether two questions show equal or equally looking pictures, in the same order."""
    if len(first.pictures) != len(second.pictures):
        return False
    for a, b in zip(first.pictures, second.pictures, strict=True):
        if a.key != b.key and (a.look is None or b.look is None or not near(a.look, b.look)):
            return False
    return True


def near(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two difference hashes, (4,) uint64, look the same; pictures with too little structure never do."""
    return bit_count(a ^ b) <= NEAR and min(bit_count(a), bit_count(b)) >= FLAT


def examined(items: Mapping[str, Item], examinations: Sequence[Item]) -> dict[str, Reason]:
    """Rows that share something with an examination: a picture, one that looks the same, or the question itself.

    Args:
        items: row id -> candidate.
        examinations: questions of every test and validation split.

    Choice: `datamodules.check` forbids training on equal pictures and equal long texts and only reports the rest; here
        rows are plenty, so that pictures that look alike and short texts without pictures go too.
    """
    pictures, texts = by_picture(examinations), by_text(examinations)
    alike = looking_alike(list(items.values()), examinations)
    found: dict[str, Reason] = {}
    for row, item in items.items():
        shared = next((pictures[p.key] for p in item.pictures if p.key in pictures), None)
        asked = texts.get(text_key(item))
        if shared is not None:
            found[row] = ("overlap_image", f"shows a picture of {examinations[shared].example.question_id}")
        elif asked is not None:
            found[row] = ("overlap_text", f"asks what {examinations[asked].example.question_id} asks")
        else:
            keys = [p.key for p in item.pictures if p.key in alike]
            if keys:
                found[row] = ("overlap_look", f"shows a picture that looks like one of {alike[keys[0]]}")
    return found


def looking_alike(items: Sequence[Item], examinations: Sequence[Item]) -> dict[str, str]:
    """Key of each candidate picture that looks like an examined one -> the question that shows that."""
    ours, theirs = looks(items), looks(examinations)
    if not ours or not theirs:
        return {}
    held, found = np.stack([look for _, _, look in theirs]), {}
    step = max(1, BLOCK // len(held))
    for first in range(0, len(ours), step):
        block = ours[first : first + step]
        distance = bit_count(held[None] ^ np.stack([look for _, _, look in block])[:, None])
        for (key, _, _), row in zip(block, distance, strict=True):
            if row.min() <= NEAR:
                found[key] = theirs[int(row.argmin())][1]
    return found


def linked_patients(patients: Mapping[str, str], items: Mapping[str, Item]) -> dict[str, str]:
    """Patient of each row, where patients who share a picture or a question's text become one.

    Two names for one picture would otherwise put it into training and test.

    Args:
        patients: row id -> patient.
        items: row id -> question.

    Returns:
        Row id -> patient, the least name of those who are linked.
    """
    parent = {patient: patient for patient in patients.values()}

    def root(patient: str) -> str:
        while parent[patient] != patient:
            parent[patient] = patient = parent[parent[patient]]
        return patient

    def join(names: Iterable[str]) -> None:
        least, *others = sorted({root(name) for name in names})
        parent.update(dict.fromkeys(others, least))

    holders: dict[str | bytes, set[str]] = {}
    for row, item in items.items():
        for mark in filter(None, (*(picture.key for picture in item.pictures), text_key(item))):
            holders.setdefault(mark, set()).add(patients[row])
    for names in holders.values():
        join(names)
    return {row: root(patient) for row, patient in patients.items()}
