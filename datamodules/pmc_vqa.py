"""PMC-VQA: four options about figures of open-access papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from typing_extensions import override

from datamodules.batch import BadExampleError, Example
from datamodules.options import agreed, chosen, mark_of, named
from datamodules.regular import present
from datamodules.released import ReleasedSet
from datamodules.rows import Record, shortened

FILES = {
    ("v1", "clean"): ("train.csv", "test_clean.csv"),
    ("v1", "full"): ("train.csv", "test.csv"),
    ("v2", "clean"): ("train_2.csv", "test_2.csv"),
    ("v2", "full"): ("train_2.csv", "test_2.csv"),
}
LETTERS = "ABCD"


class PMCVQA(ReleasedSet):
    """Questions written by a language model about figures.

    Layout: version 1: train.csv, test_clean.csv (or test.csv) and images/; version 2: train_2.csv, test_2.csv and
    images_2/.

    Columns: Figure_path, Question, Choice A to Choice D (" A:Diffuse uptake", the letter is cut off), and the right
    letter under Answer_label (version 1) or Answer (version 2; the text of a choice is understood as well). Rows whose
    choices carry another letter, or repeat, or whose Answer is another choice than Answer_label, are bad: a few of the
    release are, so set on_bad_row: skip.

    Source: Zhang et al., arXiv:2305.10415, hub id RadGenome/PMC-VQA. MedEvalKit's test is version 2 with 33 430
        questions; MedVLThinker, HuatuoGPT and OctoMed use the 2000 of version 1's test_clean.csv.
    """

    RELEASED: ClassVar[Mapping[str, int]] = {"PMC-VQA v1 clean": 2000, "PMC-VQA v2": 33_430}
    IMAGE_FOLDERS: ClassVar[Sequence[str]] = ("images", "images_2", "figures", "")

    @dataclass(frozen=True)
    class Config(ReleasedSet.Config):
        """Which version."""

        version: Literal["v1", "v2"] = "v1"
        """v1 has compound figures, v2 single ones."""
        test: Literal["clean", "full"] = "clean"
        """Which test questions of v1: the 2000 checked by hand, or the whole file; v2 has one file."""

    @property
    @override
    def subset(self) -> str:
        return f"PMC-VQA {self.config.version}" + (f" {self.config.test}" if self.config.version == "v1" else "")

    @override
    def files(self) -> Mapping[str, Sequence[Path]]:
        names = dict(zip(("train", "test"), FILES[self.config.version, self.config.test], strict=True))
        return {split: [self.root / name] if present(self.root / name) else [] for split, name in names.items()}

    @override
    def example(self, record: Record) -> Example:
        options = choices({letter: record.text(f"Choice {letter}") for letter in LETTERS})
        figure = record.text("Figure_path")
        return Example(
            patient_id=figure,
            images=(self.file(figure),),
            question=record.text("Question"),
            options=tuple(options.values()),
            answer=right_choice(record, options),
            question_id=f"pmcvqa-{Path(record.file).stem}-{record.row}",
            tags={"version": self.config.version},
        )


def choices(texts: Mapping[str, str]) -> dict[str, str]:
    """The choices without the letters that they repeat.

    A colon or a bracket behind a letter marks it; a dot does where all four carry their own, or all but one of them,
    which is then wrong. "B. fragilis" beside "E. coli" is a name.

    Raises:
        BadExampleError: a choice carries another letter, or nothing else.
    """
    marks = {letter: mark_of(text) for letter, text in texts.items()}
    dotted = [mark[0] for mark in marks.values() if mark[1] == "."]
    own = sum(mark[:2] == (letter, ".") for letter, mark in marks.items())
    dots_count = own == len(texts) or (
        own == len(texts) - 1 and set(dotted) <= set(texts) and len(dotted) == len(texts)
    )
    found = {}
    for letter, text in texts.items():
        carried, style, behind = marks[letter]
        marked = bool(carried) and (style != "." or dots_count)
        if marked and carried != letter:
            raise BadExampleError(f"Choice {letter} is {shortened(text)}, which carries the letter {carried}")
        found[letter] = behind if marked else text.strip()
        if not found[letter]:
            raise BadExampleError(f"Choice {letter} is {shortened(text)}: no text")
    return found


def right_choice(record: Record, options: Mapping[str, str]) -> str:
    """The right choice by its letter, else by its text.

    Raises:
        BadExampleError: no choice has it, or the two columns disagree.
    """
    label, stated = record.text("Answer_label", default=""), record.text("Answer", default="")
    label, column, stated = (label, "Answer_label", stated) if label else (record.text("Answer"), "Answer", "")
    answer = (
        chosen(label, options) if len(label) == 1 else named(without_letter(label, options), list(options.values()))
    )
    return agreed("Answer", stated, answer, options, f"{column} {label!r}")


def without_letter(text: str, options: Mapping[str, str]) -> str:
    """A choice's text, its mark cut off unless the text is a choice as it stands."""
    return text if text in options.values() else mark_of(text)[2]
