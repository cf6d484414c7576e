"""The JSON files of MedVLM-R1 and Med-R1: splits of OmniMedVQA for reinforcement learning."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from datamodules.batch import BadExampleError, Example
from datamodules.labelled import stem_and_options
from datamodules.modalities import modality_name
from datamodules.options import agreed, chosen, lettered
from datamodules.places import files_below
from datamodules.released import ReleasedSet
from datamodules.rows import Record, shortened

SPLIT = re.compile(r"(?<![a-z])(train|val|test)(?:ing|id|idate|idation|set)?(?![a-z])")
TAGGED = re.compile(r"\s*<answer>\s*([A-Ja-j])\s*</answer>\s*")


class R1Json(ReleasedSet):
    """Questions with a letter to be rewarded.

    Layout: any .json or .jsonl files, each a list of objects with image, problem and solution; a file whose name, or
    else the innermost of its folders, says train or val is of that split, every other one is of the test split.
    Pictures lie below the root, or images/.

    MedVLM-R1 has image as a list of names, problem with the options as "A) …" lines, solution as a letter, and also
    question, options, answer (a text), dataset and subset (a modality). Med-R1 has image as one name, problem with the
    options inside, and solution as "<answer> B </answer>".

    Source: MedVLM-R1, arXiv:2502.19634 (300 questions each of MR, CT and X-ray); Med-R1, arXiv:2503.13939.
    """

    IMAGE_FOLDERS: ClassVar[Sequence[str]] = ("", "images")

    @dataclass(frozen=True)
    class Config(ReleasedSet.Config):
        """Which files."""

        files: str = "**/*.json*"
        """Pattern of the files below the root; narrow it where other JSON lies there."""

    @override
    def files(self) -> Mapping[str, Sequence[Path]]:
        found: dict[str, list[Path]] = {"train": [], "val": [], "test": []}
        for path in files_below(self.root, self.config.files, self.config.allowed_roots):
            if path.suffix in (".json", ".jsonl"):
                found[split_of(path.relative_to(self.root))].append(path)
        return found

    @override
    def example(self, record: Record) -> Example:
        names = record.texts("image")
        if not names:
            raise BadExampleError(f"image is missing; the row has {sorted(record.fields)}")
        if record.get("options") is not None:
            question, options = record.text("question"), lettered(record.get("options"))
        else:
            question, options = stem_and_options(record.text("problem"))
        letter = letter_of(record.text("solution"))
        stated = record.text("answer", default="")
        answer = agreed("answer", stated, chosen(letter, options), options, f"solution {letter!r}")
        return Example(
            patient_id=names[0],
            images=tuple(map(self.file, names)),
            question=question,
            options=tuple(options.values()),
            answer=answer,
            question_id=record.text("question_id", "id", default=f"{record.file}:{record.row}"),
            tags={
                "dataset": record.text("dataset", default="OmniMedVQA"),
                "modality": modality_name(record.text("subset", "modality", "modality_type", default="unknown")),
            },
        )


def split_of(path: Path) -> str:
    """The split that a file's name says, else the innermost of its folders that says one; else test.

    A name that says two, such as train_and_test, says neither: nothing is trained on that may be for examination.

    Examples:
        >>> [split_of(Path(name)) for name in ("a_train/test.json", "train/valve.json", "train_and_test/ct.json")]
        ['test', 'train', 'test']
    """
    for part in (path.stem, *reversed(path.parent.parts)):
        said = set(SPLIT.findall(part.lower()))
        if len(said) == 1:
            return said.pop()
    return "test"


def letter_of(solution: str) -> str:
    """The letter of a solution, bare or in answer tags.

    Raises:
        BadExampleError: it is neither.
    """
    match = TAGGED.fullmatch(solution)
    letter = match.group(1) if match else solution
    if len(letter) != 1:
        raise BadExampleError(f"solution is {shortened(solution)}, expected a letter or <answer> letter </answer>")
    return letter
