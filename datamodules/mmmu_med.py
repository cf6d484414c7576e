"""MMMU's five medical subjects; for examination only."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import override

from datamodules.batch import BadExampleError, Example
from datamodules.embedded import hub_rows
from datamodules.options import chosen, lettered
from datamodules.released import ReleasedSet, split_files
from datamodules.rows import Fault, Record, shortened

SUBJECTS = (
    "Basic_Medical_Science",
    "Clinical_Medicine",
    "Diagnostics_and_Laboratory_Medicine",
    "Pharmacy",
    "Public_Health",
)
PLACEHOLDER = re.compile(r"<image (\d)>")
MOST_PICTURES = 7


class MMMUMed(ReleasedSet):
    """College examination questions, with up to seven pictures.

    Layout: one folder per subject (Basic_Medical_Science, Clinical_Medicine, Diagnostics_and_Laboratory_Medicine,
    Pharmacy, Public_Health) with validation-*.parquet and dev-*.parquet as on the hub (needs pyarrow), or
    validation and dev as .jsonl or .json with image_1 … image_7 as files below images/.

    `options` is a list written as text; "<image 1>" in stem and options becomes "[image 1]", the first picture shown.
    Multiple-choice questions only; open ones are left out and counted. The answers of MMMU's own test split are not
    public, so `validation` (150 questions in these subjects) is the test split here and `dev` (25) the validation.

    Source: Yue et al., arXiv:2311.16502, hub id MMMU/MMMU, Apache-2.0.
    """

    TEST_ONLY = "MMMU is a benchmark without a training split"
    RELEASED: ClassVar[Mapping[str, int]] = {"MMMU-Med validation": 150}
    HUB: ClassVar[Mapping[str, str]] = {"val": "dev", "test": "validation"}

    @property
    @override
    def subset(self) -> str:
        return "MMMU-Med validation"

    @override
    def files(self) -> Mapping[str, Sequence[Path]]:
        return {
            split: [path for subject in SUBJECTS for path in split_files(self.root, [name], (subject,))]
            for split, name in self.HUB.items()
        }

    @override
    def records(self) -> Iterator[tuple[str, Record | Fault]]:
        if not self.config.hub:
            yield from super().records()
            return
        for split, name in self.HUB.items():
            for subject in SUBJECTS:
                yield from ((split, record) for record in hub_rows(self.config.hub, name, subject))

    @override
    def example(self, record: Record) -> Example:
        if record.text("question_type", default="multiple-choice") != "multiple-choice":
            raise self.not_asked("open questions")
        key, options = record.text("id"), lettered(written_list(record.get("options")))
        names = [f"image_{number}" for number in range(1, MOST_PICTURES + 1)]
        return Example(
            patient_id=key,
            images=tuple(self.picture(record, name) for name in names if record.get(name) is not None),
            question=PLACEHOLDER.sub(r"[image \1]", record.text("question")),
            options=tuple(PLACEHOLDER.sub(r"[image \1]", text) for text in options.values()),
            answer=PLACEHOLDER.sub(r"[image \1]", chosen(record.text("answer"), options)),
            question_id=key,
            tags={
                "subject": next((name for name in SUBJECTS if name in key or name in record.file), "unknown"),
                "subfield": record.text("subfield", default="unknown"),
                "difficulty": record.text("topic_difficulty", default="unknown"),
            },
        )


def written_list(value: Any) -> Any:
    """A list that may be written as the text of one.

    Raises:
        BadExampleError: the text is none.
    """
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise BadExampleError(f"options are {shortened(value)}, expected a list of texts") from error
