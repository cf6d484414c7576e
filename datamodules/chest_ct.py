"""Chest CT: is there a tumour in this slice? Four patients: a hard and honest task, not a demonstration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from typing_extensions import override

from datamodules.assets import require_assets
from datamodules.base import VQADataModule
from datamodules.batch import Example
from datamodules.dicom import POSITION, contour_heights, hounsfield, numbers, read_dicom
from datamodules.worked import Clue, worked

PRESENT, ABSENT = "present", "absent"
CLUES = {
    PRESENT: Clue(
        "a solid mass against the dark lung", "tumour absorbs as much as muscle", ABSENT, "it is no vessel", 0.7, 0.2
    ),
    ABSENT: Clue(
        "dark lungs with thin vessels alone", "air absorbs almost nothing", PRESENT, "no mass stands out", 0.7, 0.3
    ),
}
AIR, BONE = -1000.0, 400.0
"""Hounsfield units shown black and white: wide enough for lung and mediastinum at once."""


class ChestCTSlices(VQADataModule):
    """Axial slices of four lung cancer patients; present where a radiation oncologist outlined the gross tumour.

    Patients are split, so a picture model has two or three patients to learn from and a linear readout of general
    features stays at chance on the fourth. A third of the slices shows tumour.

    Source: Lambin, doi:10.17195/candat.2016.08.1, CC BY-NC 3.0, in the package pycerr. Not for commercial use.
    Choice: a slice counts as positive if the outline GTV-1 has a contour at its height; the references from contours
        to slices are empty in these files.
    """

    @dataclass(frozen=True)
    class Config(VQADataModule.Config):
        """One patient each for validation and test, by the first seed that does so."""

        root: str = "assets"
        """Folder that `python -m datamodules.assets` filled."""
        val_fraction: float = 0.25
        """Share of the patients in the validation split, in [0, 1)."""
        split_seed: int = 3
        """Moves patients between splits; of four, most seeds leave a split empty, which is refused."""

    @override
    def examples(self) -> Iterator[Example]:
        folder = require_assets(self.root, ["chest_ct"])["chest_ct"]
        for patient in sorted(folder.glob("pat_?")):
            tumour = contour_heights(read_dicom(next(patient.glob("DCM_RS*"))), "GTV")
            for path in sorted(patient.glob("DCM_IMG*")):
                height = round(numbers(read_dicom(path)[POSITION])[2], 1)
                answer = PRESENT if height in tumour else ABSENT
                question_id = f"ct-{patient.name}-{path.stem[-5:]}"
                yield Example(
                    patient_id=f"lung-{patient.name}",
                    images=(partial(picture, path),),
                    question="Is a lung tumour present in this slice?",
                    options=(PRESENT, ABSENT),
                    answer=answer,
                    question_id=question_id,
                    reasoning=worked(answer, CLUES[answer], 1 / 3 if answer == PRESENT else 2 / 3, question_id),
                    tags={"question_type": "tumour_in_slice", "modality": "CT", "finding": CLUES[answer].sign},
                )


def picture(path: Path) -> Image.Image:
    """A slice as grey levels, the patient's right at the left, as stored."""
    share = (hounsfield(read_dicom(path)) - AIR) / (BONE - AIR)
    return Image.fromarray((255 * np.clip(share, 0, 1)).astype(np.uint8)).convert("RGB")
