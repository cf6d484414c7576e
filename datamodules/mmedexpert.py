"""MMedExpert's own rows: four specialties, step-by-step traces under named guidelines, and where each row is from.

The set of the paper is not released. This is the format in which a set like it is kept here: JSON lines, one question
a line, any number of files below the root.

    {"id": "ped-000017",                              unique over all files
     "specialty": "pediatrics",                       adult_medicine, pediatrics, brain_senses or oncology_surgery
     "patient_id": "case-8812",                       the split key; nobody is in two splits
     "images": ["images/case-8812-a.png"],            none or more, below the root, shown in this order
     "question": "Which finding …?",                  the stem without the options
     "options": {"A": "wide", "B": "narrow"},         two to ten; a list of texts also does; {} for an open question
     "answer": "B",                                   a letter; the text itself for an open question
     "reasoning": {"differential": "First …"},        guideline -> trace without tags, ending in the conclusion
     "split": "train",                                optional: train, val or test; else by a hash of the patient
     "tags": {"modality": "X-ray"},                   optional, texts
     "provenance": {"source": "PMC-OA",               required: the pool the question is from,
                    "source_id": "PMC1234/fig2",      the row or figure in it,
                    "licence": "CC BY 4.0",           and the licence of question and pictures;
                    "teacher": "…", "filters": […]}}  free: who wrote the traces, which filters were passed

A file may hold rows of one split only and be named for it (train.jsonl); a row's own `split` wins.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from typing_extensions import override

from datamodules.base import SPLITS
from datamodules.batch import BadExampleError, Example
from datamodules.options import chosen, lettered
from datamodules.places import files_below
from datamodules.released import ReleasedSet
from datamodules.row_set import BY_PATIENT
from datamodules.rows import Fault, Record, shortened

SPECIALTIES = ("adult_medicine", "pediatrics", "brain_senses", "oncology_surgery")
PROVENANCE = ("source", "source_id", "licence")
"""What every row must say about itself."""


class MMedExpert(ReleasedSet):
    """Questions of the four specialties with worked traces.

    Layout: any number of .jsonl files below the root, in the format that the top of datamodules/mmedexpert.py
    describes, and the pictures that they name.
    """

    IMAGE_FOLDERS: ClassVar[Sequence[str]] = ("",)

    @dataclass(frozen=True)
    class Config(ReleasedSet.Config):
        """Which rows."""

        subset: Literal["", "adult_medicine", "pediatrics", "brain_senses", "oncology_surgery"] = ""
        """The specialty whose rows are taken; empty takes all four."""
        shuffle_options: bool = True
        """Draw the order of the options per question, so that no letter is favoured."""

    @property
    @override
    def subset(self) -> str:
        return f"MMedExpert {self.config.subset or 'all'}"

    @override
    def files(self) -> Mapping[str, Sequence[Path]]:
        return {"train": files_below(self.root, "**/*.jsonl", self.config.allowed_roots)}

    @override
    def records(self) -> Iterator[tuple[str, Record | Fault]]:
        for _, record in super().records():
            asked = record.get("split") if isinstance(record, Record) else None
            named = Path(record.file).stem
            yield asked if asked in SPLITS else named if named in SPLITS else BY_PATIENT, record

    @override
    def expected_splits(self) -> Collection[str]:
        return [name for name in SPLITS if name in self.scan.files]  # few patients may all be in one split

    @override
    def example(self, record: Record) -> Example:
        specialty = known(record.text("specialty"), "specialty", SPECIALTIES)
        if self.config.subset not in ("", specialty):
            raise self.not_asked(f"rows of {specialty}")
        if record.get("split") is not None:
            known(record.text("split"), "split", SPLITS)
        provenance = mapping(record, "provenance")
        absent = [name for name in PROVENANCE if not provenance.get(name)]
        if absent:
            raise BadExampleError(f"provenance does not say {', '.join(absent)}; it has {sorted(provenance)}")
        answer, options = record.text("answer"), record.get("options") or {}
        options = lettered(options) if options else {}
        return Example(
            patient_id=record.text("patient_id"),
            images=tuple(map(self.file, record.texts("images"))),
            question=record.text("question"),
            options=tuple(options.values()),
            answer=chosen(answer, options) if options else answer,
            question_id=record.text("id"),
            reasoning=texts_of(record, "reasoning"),
            tags={"specialty": specialty, **texts_of(record, "tags"), "source": str(provenance["source"])},
        )


def known(value: str, name: str, allowed: Sequence[str]) -> str:
    """A value out of a fixed list.

    Raises:
        BadExampleError: it is not in it.
    """
    if value not in allowed:
        raise BadExampleError(f"{name} is {shortened(value)}, expected one of {', '.join(allowed)}")
    return value


def mapping(record: Record, name: str) -> Mapping[str, object]:
    """A field that holds an object; empty where it is missing.

    Raises:
        BadExampleError: something else stands there.
    """
    value = record.get(name)
    if value is not None and not isinstance(value, dict):
        raise BadExampleError(f"{name} is {shortened(value)}, expected an object")
    return value or {}


def texts_of(record: Record, name: str) -> dict[str, str]:
    """A field that holds an object of texts.

    Raises:
        BadExampleError: a value is no text, or empty.
    """
    found = mapping(record, name)
    wrong = [key for key, text in found.items() if not isinstance(text, str) or not text.strip()]
    if wrong:
        raise BadExampleError(f"{name}.{wrong[0]} is {shortened(found[wrong[0]])}, expected a text")
    return {key: str(text).strip() for key, text in found.items()}
