"""What tells one set of questions, one way of asking and one picture from another."""

from __future__ import annotations

import hashlib

from datamodules.base import VQADataModule
from datamodules.batch import Example, ImageSource, file_of
from datamodules.prompts import VERSION
from datamodules.shown import READING

_known: dict[bytes, str] = {}


def data_sha256(data: VQADataModule, split: str) -> str:
    """Hash of a split's questions, options, answers and traces in their order, and of its picture files' bytes.

    Pictures that stand in a row count by the hash of their bytes, those that are drawn or cut when looked at by
    question id. Within a process files are read once for the same rows, as long as path, size and time stay.

    Raises:
        OSError: a picture file is not there.
    """
    seen = hashlib.sha256()
    for example in data.splits[split]:
        seen.update(row_bytes(example))
        for source in example.images:
            seen.update(stamp(source))
    if seen.digest() not in _known:
        digest = hashlib.sha256()
        for example in data.splits[split]:
            digest.update(row_bytes(example))
            for source in example.images:
                digest.update(picture_bytes(source))
        _known[seen.digest()] = digest.hexdigest()
    return _known[seen.digest()]


def row_bytes(example: Example) -> bytes:
    """Everything in a row but its pictures."""
    row = (example.question_id, example.patient_id, example.question, example.options, example.answer)
    return repr((*row, sorted(example.reasoning.items()))).encode()


def stamp(source: ImageSource) -> bytes:
    """What tells within a process that a picture is still the same, without reading it."""
    file = file_of(source)
    if file is None:
        return picture_bytes(source)
    found = file.stat()
    return repr((str(file.resolve()), found.st_size, found.st_mtime_ns, page_of(source))).encode()


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
