"""What tells one set of questions, one way of asking and one picture from another; which pictures are bad."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from datamodules.base import VQADataModule
from datamodules.batch import BadExampleError, Example, ImageSource, file_of, load_image
from datamodules.graded import Graded
from datamodules.memory import key_of, recall, remember, stamp
from datamodules.prompts import VERSION
from datamodules.shown import READING

STAMPS = 2**16
"""Picture files whose size and times are held at once; of others they are looked up again."""
_known: dict[str, str] = {}


def data_sha256(data: VQADataModule, split: str) -> str:
    """Hash of a split's questions, options, answers, traces and grades in their order, and of its picture files' bytes.

    Pictures that stand in a row count by the hash of their bytes, those that are drawn or cut when looked at by
    question id. Files are read once for the same rows, as long as path, size and times stay: within a process, and
    between processes where the set has a `memory`.

    Raises:
        OSError: a picture file is not there.
    """
    key, changed = contents_key(("data_sha256",), data.splits[split])
    if key not in _known:
        found = recall(data.memory, key)
        _known[key] = found or read_sha256(data.splits[split])
        if not found:
            remember(data.memory, key, _known[key], changed)
    return _known[key]


def read_sha256(examples: Iterable[Example]) -> str:
    """As `data_sha256`, every file read."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(row_bytes(example))
        for source in example.images:
            digest.update(picture_bytes(source))
    return digest.hexdigest()


def contents_key(about: Iterable[str], examples: Iterable[Example], missing: bool = False) -> tuple[str, float]:
    """A key of `memory` for what follows from examples and their pictures, and when the last file was written.

    Args:
        about: what the finding is about, and further things that it follows from.
        examples: in their order.
        missing: pictures that are not there are a part of the key.

    Raises:
        OSError: a picture file is not there, and `missing` is off.
    """
    changed = 0.0

    @lru_cache(maxsize=STAMPS)
    def stamped(file: Path) -> bytes:
        nonlocal changed
        try:
            told, written = stamp(file)
        except (OSError, ValueError) as error:
            if not missing:
                raise
            return str(error).encode("utf-8", "backslashreplace")
        changed = max(changed, written)
        return told

    def parts() -> Iterator[bytes]:
        yield from (text.encode("utf-8", "backslashreplace") for text in about)
        for example in examples:
            yield row_bytes(example)
            for source in example.images:
                file = file_of(source)
                yield picture_bytes(source) if file is None else stamped(file) + page_of(source).encode()

    key = key_of(parts())  # by then `changed` is known
    return key, changed


def bad_pictures(examples: Iterable[Example], memory: Path | None) -> dict[str, str]:
    """Why a picture of an example cannot be used, by the example's id; every picture is decoded once, and remembered.

    Args:
        examples: with ids that differ.
        memory: as of `VQADataModule.memory`.
    """
    key, changed = contents_key(("bad_pictures",), examples, missing=True) if memory else ("", 0.0)
    found = recall(memory, key)
    if found is None:
        found = {example.question_id: reason for example in examples if (reason := trouble(example))}
        remember(memory, key, found, changed)
    return found


def trouble(example: Example) -> str:
    """Why the first of an example's bad pictures cannot be used; empty where all can."""
    try:
        for source in example.images:
            load_image(source)
    except BadExampleError as error:
        return str(error)
    return ""


def row_bytes(example: Example) -> bytes:
    """Everything in a row but its pictures."""
    row = (example.question_id, example.patient_id, example.question, example.options, example.answer)
    own = (example.answers, sorted(example.grades.items())) if isinstance(example, Graded) else ()
    return repr((*row, sorted(example.reasoning.items()), *own)).encode()


def prompt_sha256(example: Example, instruction: str) -> str:
    """Hash of what is asked besides the options: the prompt's version, stem, instruction, pictures; 16 digits of it.

    Pictures count as of `data_sha256`.
    """
    digest = hashlib.sha256(repr((VERSION, example.question, instruction)).encode())
    for source in example.images:
        digest.update(picture_bytes(source))
    return digest.hexdigest()[:16]


def picture_bytes(source: ImageSource) -> bytes:
    """What tells a picture from another: its file, or the hash that it carries, and how it is read.

    Nothing where it is made on demand.
    """
    file = file_of(source)
    held = file.read_bytes() if file is not None else getattr(source, "sha256", "").encode()
    return repr((READING, page_of(source))).encode() + held if held else b""


def page_of(source: ImageSource) -> str:
    """Which of several pages is shown."""
    return getattr(source, "frames", "refuse")
