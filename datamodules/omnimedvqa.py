"""OmniMedVQA: two to four options over twelve modalities; for examination only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from typing_extensions import override

from datamodules.batch import Example
from datamodules.modalities import modality_name
from datamodules.options import named
from datamodules.released import ReleasedSet
from datamodules.rows import Record

LETTERED = tuple(f"option_{letter}" for letter in "ABCD")


class OmniMedVQA(ReleasedSet):
    """Questions made from many labelled sets, which differ greatly in size.

    Layout: QA_information/Open-access/*.json (and Restricted-access/*.json) beside Images/, as in the released zip; a
    folder of such .json files alone also does.

    The answer is the text of an option, not a letter; options that are absent or empty do not count; the modality
    stands under `modality_type`, in one released record under `modality`, and its odd spellings are made one. Of the
    open part 64 % is RadImageNet, so look at the macro mean over `modality` too. Numbers of different subsets do not
    compare: the report states the subset by name and count.

    Source: Hu et al., arXiv:2402.09181, hub id foreverbeliever/OmniMedVQA: 42 files, 88 996 questions open-access.
    Choice: no training split. Med-R1's and MedVLM-R1's splits of it are read by `datamodules.r1_json`.
    """

    TEST_ONLY = "OmniMedVQA is a benchmark; to train on a released split of it, use datamodules.r1_json.R1Json"
    RELEASED: ClassVar[Mapping[str, int]] = {"OmniMedVQA open-access": 88_996}
    IMAGE_FOLDERS: ClassVar[Sequence[str]] = ("", "OmniMedVQA")

    @dataclass(frozen=True)
    class Config(ReleasedSet.Config):
        """Which part."""

        access: Literal["open", "restricted", "all"] = "open"
        """Open-access questions come with their pictures; of restricted ones the release has the questions only."""
        datasets: tuple[str, ...] = ()
        """Names of source data sets to take, such as RadImageNet; empty takes all. Changes the subset's name."""

    @property
    @override
    def subset(self) -> str:
        part = "all" if self.config.access == "all" else f"{self.config.access}-access"
        return f"OmniMedVQA {part}" + (f", only {', '.join(self.config.datasets)}" if self.config.datasets else "")

    @override
    def files(self) -> Mapping[str, Sequence[Path]]:
        names = {"open": ("Open",), "restricted": ("Restricted",), "all": ("Open", "Restricted")}[self.config.access]
        for top in (self.root, self.root / "OmniMedVQA"):
            found = [path for name in names for path in sorted((top / f"QA_information/{name}-access").glob("*.json"))]
            if found:
                return {"test": found}
        return {"test": sorted(self.root.glob("*.json"))}

    @override
    def example(self, record: Record) -> Example:
        dataset = record.text("dataset", default=Path(record.file).stem)
        if self.config.datasets and dataset not in self.config.datasets:
            raise self.not_asked(f"data sets other than {', '.join(self.config.datasets)}")
        options = tuple(record.text(name) for name in LETTERED if record.get(name) is not None)
        image = record.text("image_path")
        return Example(
            patient_id=image,
            images=(self.file(image),),
            question=record.text("question"),
            options=options,
            answer=named(record.text("gt_answer"), options),
            question_id=record.text("question_id"),
            tags={
                "dataset": dataset,
                "modality": modality_name(record.text("modality_type", "modality", default="unknown")),
                "question_type": record.text("question_type", default="unknown"),
            },
        )
