"""MedXpertQA: expert-level examination questions, with pictures (MM) or without (Text). For examination only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from typing_extensions import override

from datamodules.batch import BadExampleError, Example
from datamodules.options import chosen, lettered
from datamodules.regular import present
from datamodules.released import ReleasedSet
from datamodules.rows import Record, shortened

MOST_PICTURES = 6
"""Per question, over the whole release."""
CHOICES = "\nAnswer Choices:"
"""From here on the released stem repeats the options."""
TAGS = ("medical_task", "body_system", "question_type")


class MedXpertQA(ReleasedSet):
    """Examination questions of medical boards; the letters are those of the release.

    Layout: MM/dev.jsonl, MM/test.jsonl, Text/dev.jsonl, Text/test.jsonl and images/, as on the hub under the id
    TsinghuaC3I/MedXpertQA; or the shape of the GitHub copy, medxpertqa_mm_input.jsonl; or any one .jsonl file, which is
    then the test split.

    Both shapes are read: options as a mapping or as a list of {letter, content}, the label as a letter or as a list of
    one, pictures as names or as {image_path}. The stem ends before "Answer Choices:", where the release repeats the
    options (MedEvalKit shows them twice). The five rows of `dev` are the validation split; there is no training split.

    Source: Zuo et al., arXiv:2501.18362, MIT: 2000 questions MM, 2450 Text.
    """

    TEST_ONLY = "the authors of MedXpertQA ask that it be used for examination only"
    RELEASED: ClassVar[Mapping[str, int]] = {"MedXpertQA-MM": 2000, "MedXpertQA-Text": 2450}

    @dataclass(frozen=True)
    class Config(ReleasedSet.Config):
        """Which half."""

        part: Literal["MM", "Text"] = "MM"
        """Questions with one to six pictures and five options, or text-only ones with ten."""
        file: str = ""
        """The test file below the root; empty finds it by the released names."""

    @property
    @override
    def subset(self) -> str:
        return f"MedXpertQA-{self.config.part}"

    @override
    def files(self) -> Mapping[str, Sequence[Path]]:
        part = self.config.part
        name = f"medxpertqa_{part.lower()}_input.jsonl"
        known = (f"{part}/test.jsonl", "test.jsonl", name, f"input/{name}", f"eval/data/medxpertqa/input/{name}")
        wanted = (self.config.file,) if self.config.file else known
        test = [self.root / name for name in wanted if present(self.root / name)][:1]
        if not test and not self.config.file:
            alone = sorted(path for path in self.root.glob("*.jsonl") if path.name != "dev.jsonl")
            test = alone if len(alone) == 1 else []
        dev = [path for path in (self.root / part / "dev.jsonl", self.root / "dev.jsonl") if present(path)][:1]
        return {"val": dev if not self.config.file else [], "test": test}

    @override
    def example(self, record: Record) -> Example:
        options = lettered(record.get("options"))
        labels = record.texts("label")
        if len(labels) != 1:
            raise BadExampleError(f"label is {shortened(record.get('label'))}, expected one letter")
        names = picture_names(record.get("images"))
        if self.config.part == "MM" and not 1 <= len(names) <= MOST_PICTURES:
            raise BadExampleError(f"has {len(names)} images, expected 1 to {MOST_PICTURES}")
        if self.config.part == "Text" and names:
            raise BadExampleError(f"has {len(names)} images, expected none in part=Text; is this a file of part=MM?")
        key = record.text("id")
        return Example(
            patient_id=key,
            images=tuple(map(self.file, names)),
            question=record.text("question").rpartition(CHOICES)[0].rstrip() or record.text("question"),
            options=tuple(options.values()),
            answer=chosen(labels[0], options),
            question_id=key,
            tags={name: record.text(name, default="unknown") for name in TAGS},
        )


def picture_names(images: object) -> list[str]:
    """File names from a list of names or of {image_path}; nothing where there are no pictures.

    Raises:
        BadExampleError: another form.
    """
    held = [] if images is None else images
    if not isinstance(held, list):
        raise BadExampleError(f"images are {shortened(images)}, expected a list")
    names = [item.get("image_path") if isinstance(item, dict) else item for item in held]
    if not all(isinstance(name, str) for name in names):
        raise BadExampleError(f"images are {shortened(images)}, expected file names or objects with image_path")
    return names
