"""The part of the check that a run does before its weights load."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from datamodules.base import VQADataModule
from datamodules.batch import BadExampleError
from datamodules.check.audit import Audit, audit
from datamodules.check.overlap import overlaps, shared_patients
from datamodules.hashes import contents_key
from datamodules.memory import key_of, recall, remember
from guards.printable import printable

MAX_PICTURES = 2000
"""Files opened per specialty by the quick check; the rest is opened when it is needed, and compared by name alone."""


def quick_check(data: VQADataModule, *, training: bool = True) -> dict[str, Any]:
    """Build the splits, open the picture files, and count.

    Args:
        data: the set.
        training: whether it is to be trained on; sets for examination only are refused then.

    Returns:
        Per split: what `datamodules.check.audit.counts` counts.

    Raises:
        BadExampleError: a split is empty, a row is malformed, a patient is in two splits, pictures do not open (names
            the first ten of them), or the set may not be trained on.
    """
    return dict(checked(data, training).splits)


def quick_checks(
    sets: Mapping[str, VQADataModule], *, training: bool = True, examined: Mapping[str, VQADataModule] | None = None
) -> None:
    """Check every set, and that no training split holds a question or picture of any set's test split.

    Pictures are compared by their pixels, whatever their files are called; those that are drawn or stand in a row, and
    files beyond `MAX_PICTURES`, by where they come from. `python -m datamodules.check` looks at all of them. Sets with
    a `memory` are not looked at again, in whatever process, while rows, settings, picture files and code stay the same.

    Args:
        sets: specialty -> set.
        training: as of `quick_check`; where nothing is trained, an overlap is told on stderr.
        examined: further sets, of which no training split counts: whoever is examined on them trains on others.

    Raises:
        BadExampleError: as `quick_check`, or there is an overlap; names the first ten.
    """
    for data in sets.values():
        if training:
            data.require_training()
    tell(remembered(sets, training, examined or {}), training)


def quick_counts(
    sets: Mapping[str, VQADataModule], *, training: bool = True, examined: Mapping[str, VQADataModule] | None = None
) -> dict[str, dict[str, Any]]:
    """What `quick_checks` does, remembering nothing.

    Returns:
        Set -> what `quick_check` returns.
    """
    audits, found = looked_at(asked_of(sets, training, examined or {}), len(sets))
    tell(found, training)
    return {name: dict(one.splits) for name, one in zip(sets, audits, strict=False)}


def tell(found: Sequence[str], training: bool) -> None:
    """Refuse overlaps where somebody trains, and tell them where nobody does; errors as of `quick_checks`."""
    if not training:
        for one in found:
            print(f"OVERLAP: {printable(one)}; what was trained on that split has seen them", file=sys.stderr)
    elif found:
        shown = "\n  ".join(found[:10])
        raise BadExampleError(f"what is examined must not be trained on; {len(found)} overlaps:\n  {shown}")


def remembered(sets: Mapping[str, VQADataModule], training: bool, examined: Mapping[str, VQADataModule]) -> list[str]:
    """The overlaps that forbid training, looked for where nothing is remembered; arguments and errors as there."""
    memory = next((data.memory for data in sets.values()), None)
    asked = asked_of(sets, training, examined)
    keys = [contents_of(*one) for one in asked] if memory else []
    key, changed = key_of_sets(len(sets), [one for one, _ in keys]), max((at for _, at in keys), default=0.0)
    found = recall(memory, key)
    if found is None:
        _, found = looked_at(asked, len(sets))
        if found and training:
            return found
        remember(memory, key, found, changed)
        for one, written in keys if not found else ():  # each for itself, as workers come for them
            remember(memory, key_of_sets(1, [one]), found, written)
    return found


Asked = Sequence[tuple[VQADataModule, bool]]
"""Sets, and whether each may be trained on."""


def asked_of(sets: Mapping[str, VQADataModule], training: bool, examined: Mapping[str, VQADataModule]) -> Asked:
    """What is to be looked at; arguments as of `quick_checks`."""
    return [(data, training) for data in sets.values()] + [(data, False) for data in examined.values()]


def looked_at(asked: Asked, count: int) -> tuple[list[Audit], list[str]]:
    """Audits of sets of which the first `count` may be trained on, and the overlaps that forbid it; errors as there."""
    audits = [checked(*one) for one in asked]
    audits[count:] = [replace(one, items={**one.items, "train": []}) for one in audits[count:]]
    return audits, [str(one) for one in overlaps(audits) if one.forbids]


def key_of_sets(count: int, contents: Sequence[str]) -> str:
    """A key of `memory` for sets of which the first `count` may be trained on, and the others are only examined."""
    return key_of(part.encode() for part in (str(count), *contents))


def contents_of(data: VQADataModule, training: bool) -> tuple[str, float]:
    """A key of `memory` for a set as it is used, and when the last of its picture files was written."""
    about = (type(data).__qualname__, data.specialty, repr(data.config), str(training), str(MAX_PICTURES))
    splits = [f"{name} {len(held)}" for name, held in data.splits.items()]
    return contents_key((*about, *splits), chain.from_iterable(data.splits.values()), missing=True)


def checked(data: VQADataModule, training: bool) -> Audit:
    """The audit behind `quick_check`; arguments and errors as there."""
    if training:
        data.require_training()
    found = audit(data, limit=MAX_PICTURES, draw=False, looks=False, as_used=True)
    pictures = {picture.key: picture for held in found.items.values() for item in held for picture in item.pictures}
    bad = [picture.reason for _, picture in sorted(pictures.items()) if picture.trouble]
    if bad:
        shown = "\n  ".join(bad[:10])
        count = f"{len(bad)} of {len(pictures)}"
        raise BadExampleError(f"specialty {data.specialty!r}: {count} pictures are bad:\n  {shown}")
    for patient, first, second in shared_patients(found.items):
        both = f"{first} and in {second}"
        raise BadExampleError(f"specialty {data.specialty!r}: patient {patient!r} is in {both}")
    return found
