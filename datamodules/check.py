"""Look at the data before any weights load: counts, pictures that open, letters, length of the options."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from datamodules.base import SPLITS, VQADataModule
from datamodules.batch import BadExampleError, load_image

MAX_PICTURES = 2000
"""Files opened per specialty by the quick check; the rest is opened when it is needed."""


def quick_check(data: VQADataModule) -> dict[str, Any]:
    """Build the splits, open the picture files, and count.

    Returns:
        Per split: examples, patients, picture files, right letters by share, and the accuracy of always guessing the
        most frequent one.

    Raises:
        BadExampleError: a split is empty, a row is malformed, a patient is in two splits, or pictures do not open;
            names the first ten of them.
    """
    files = {source for name in SPLITS for e in data.splits[name] for source in e.images if isinstance(source, Path)}
    broken = []
    for number, path in enumerate(sorted(files)):
        try:
            inside_root(path, data.root)
            if number < MAX_PICTURES:
                load_image(path)
        except BadExampleError as error:
            broken.append(str(error))
    if broken:
        shown = "\n  ".join(broken[:10])
        count = f"{len(broken)} of {len(files)}"
        raise BadExampleError(f"specialty {data.specialty!r}: {count} pictures are bad:\n  {shown}")
    patients = {name: {example.patient_id for example in data.splits[name]} for name in SPLITS}
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = patients[first] & patients[second]
        if shared:
            both = f"{first} and in {second}"
            raise BadExampleError(f"specialty {data.specialty!r}: patient {min(shared)!r} is in {both}")
    return {name: split_report(data, name) for name in SPLITS}


def split_report(data: VQADataModule, name: str) -> dict[str, Any]:
    """Counts of one split."""
    examples = data.splits[name]
    letters = Counter(example.letter for example in examples)
    return {
        "examples": len(examples),
        "patients": len({example.patient_id for example in examples}),
        "with_traces": sum(bool(example.reasoning) for example in examples),
        "letters": {letter: round(count / len(examples), 3) for letter, count in sorted(letters.items())},
        "majority_guess": round(max(letters.values(), default=0) / max(1, len(examples)), 3),
        "random_guess": round(sum(1 / len(e.options) for e in examples) / max(1, len(examples)), 3),
    }


def inside_root(path: Path, root: Path) -> None:
    """Refuse a picture outside the data set's folder, symbolic links resolved.

    Raises:
        BadExampleError: names the path and the root.
    """
    if str(root) not in ("", ".") and not path.resolve().is_relative_to(root.resolve()):
        raise BadExampleError(f"{path}: lies outside the data set's root {root}; absolute paths and '..' are refused")
