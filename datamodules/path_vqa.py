"""PathVQA: questions about figures of pathology textbooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from datamodules.released import split_files
from datamodules.rows import Record
from datamodules.short_answers import ShortAnswerSet


class PathVQA(ShortAnswerSet):
    """Questions made from captions.

    Layout: data/train-*.parquet, data/validation-*.parquet and data/test-*.parquet as on the hub (needs pyarrow),
    or train, validation and test as .jsonl, .json or .csv with image (a file below images/), question and answer.

    Source: He et al., arXiv:2003.10286, hub id flaviagiammarino/path-vqa, MIT: 19 654 training, 6259 validation and
        6719 test questions, 3362 of these yes or no.
    """

    HUB: ClassVar[Mapping[str, str]] = {"train": "train", "val": "validation", "test": "test"}

    @override
    def files(self) -> Mapping[str, Sequence[Path]]:
        return {
            "train": split_files(self.root, ["train"]),
            "val": split_files(self.root, ["validation", "val"]),
            "test": split_files(self.root, ["test"]),
        }

    @override
    def tags(self, record: Record) -> Mapping[str, str]:
        return {"modality": "Pathology"}
