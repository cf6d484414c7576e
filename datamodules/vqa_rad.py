"""VQA-RAD: questions of clinicians about radiographs and slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from datamodules.released import split_files
from datamodules.rows import Record
from datamodules.short_answers import ShortAnswerSet


class VQARad(ShortAnswerSet):
    """Questions asked and answered by clinicians.

    Layout: data/train-*.parquet and data/test-*.parquet as on the hub (needs pyarrow), or train and test as .jsonl,
    .json or .csv with image (a file below images/), question and answer.

    The released splits share pictures. Training rows about a picture of the test split are left out, and counted:
    trained on as released, a model is examined on pictures that it has seen.

    Source: Lau et al., doi:10.1038/sdata.2018.251, hub id flaviagiammarino/vqa-rad, CC0: 1793 training and 451 test
        questions, 251 of these yes or no.
    Choice: the release has no validation split; `val_fraction` of the training pictures make one.
    """

    HUB: ClassVar[Mapping[str, str]] = {"train": "train", "test": "test"}

    @override
    def files(self) -> Mapping[str, Sequence[Path]]:
        return {"train": split_files(self.root, ["train"]), "test": split_files(self.root, ["test"])}

    @override
    def tags(self, record: Record) -> Mapping[str, str]:
        return {"answer_type": record.text("answer_type", default="unknown")}
