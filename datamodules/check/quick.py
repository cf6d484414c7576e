"""The part of the check that a run does before its weights load."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from datamodules.base import VQADataModule
from datamodules.batch import BadExampleError
from datamodules.check.audit import Audit, audit
from datamodules.check.overlap import overlaps, shared_patients

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


def quick_checks(sets: Mapping[str, VQADataModule], *, training: bool = True) -> None:
    """Check every set, and that no training split holds a question or picture of any set's test split.

    Pictures are compared by their pixels, whatever their files are called; those that are drawn or stand in a row, and
    files beyond `MAX_PICTURES`, by where they come from. `python -m datamodules.check` looks at all of them.

    Args:
        sets: specialty -> set.
        training: as of `quick_check`; where nothing is trained, an overlap is told on stderr.

    Raises:
        BadExampleError: as `quick_check`, or there is an overlap; names the first ten.
    """
    found = [str(o) for o in overlaps([checked(data, training) for data in sets.values()]) if o.forbids]
    if not training:
        for one in found:
            print(f"OVERLAP: {one}; what was trained on that split has seen them", file=sys.stderr)
    elif found:
        shown = "\n  ".join(found[:10])
        raise BadExampleError(f"what is examined must not be trained on; {len(found)} overlaps:\n  {shown}")


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
