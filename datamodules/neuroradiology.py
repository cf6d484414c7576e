"""Neuroradiology: the plane of a brain slice, and the tissue at a marked point."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from typing_extensions import override

from datamodules.assets import require_assets
from datamodules.base import VQADataModule, uniform_hash
from datamodules.batch import Example
from datamodules.nifti import read_nifti
from datamodules.windows import jitter
from datamodules.worked import Clue, worked

PLANES = {"sagittal": (0, 30, 168), "coronal": (1, 36, 202), "axial": (2, 38, 148)}
"""Plane -> the axis it cuts, first and last slice that hold a good part of the brain."""
GREY, WHITE, FLUID = "grey matter", "white matter", "cerebrospinal fluid"
CLUES = {
    "sagittal": Clue("one profile without mirror halves", "the cut runs front to back", "axial", "no halves mirror"),
    "coronal": Clue("mirror halves, wider than tall", "the cut faces the patient", "axial", "the outline is not long"),
    "axial": Clue("mirror halves, longer than wide", "the cut is level", "coronal", "the outline is too long"),
    GREY: Clue("mid grey inside the ring", "cell bodies hold more water than myelin", WHITE, "it is not bright"),
    WHITE: Clue("bright inside the ring", "myelin shortens T1", GREY, "it is brighter than cortex"),
    FLUID: Clue("dark inside the ring", "water has a long T1", GREY, "it is darker than cortex"),
}
BLOCK, GAP = 5, 3
"""Slices per block, and slices left out between blocks, of 1 mm."""
PER_PLANE, PER_TISSUE = 240, 240
"""Questions per option of either kind."""
VIEW, ZOOM, RING = 48, 3, 4
"""Side of the marked view in mm, pixels per mm, radius of the ring in mm."""


class BrainSlices(VQADataModule):
    """Slices of the ICBM 152 template in T1, three planes.

    A block of five neighbouring slices of one plane is a patient, three slices between blocks are left out: no slice
    is in two splits, though slices of different planes cross in a line. It is an average brain of 152 people: the
    score says that this brain is known.

    Source: Fonov et al., doi:10.1016/j.neuroimage.2010.07.033, in the package nilearn; free use with the notice kept.
    Choice: grey and white matter are where the template's maps exceed 85 % and 90 % with every neighbour of a voxel,
        fluid is where both together stay under 10 % inside the brain.
    """

    @dataclass(frozen=True)
    class Config(VQADataModule.Config):
        """As every data set."""

        root: str = "assets"
        """Folder that `python -m datamodules.assets` filled."""

    @override
    def examples(self) -> Iterator[Example]:
        folder = require_assets(self.root, ["mni152"])["mni152"]
        blocks = {plane: blocks_of(plane) for plane in PLANES}
        for plane in PLANES:
            for number in range(PER_PLANE):
                block = number % len(blocks[plane])
                slices = blocks[plane][block]
                key = f"plane-{plane}-{number:03}"
                picture = partial(whole_view, folder, plane, slices[number // len(blocks[plane]) % BLOCK], key)
                yield brain(key, f"{plane}-{block:02}", picture, plane, tuple(PLANES))
        every = [(plane, block) for plane in PLANES for block in range(len(blocks[plane]))]
        every.sort(key=lambda at: uniform_hash("tissue", *at))
        for tissue in (GREY, WHITE, FLUID):
            inside = tissue_core(folder, tissue)
            spots = {at: spots_in(inside, at[0], blocks[at[0]][at[1]]) for at in every}
            useful = [at for at in every if len(spots[at])]
            for number in range(PER_TISSUE):
                plane, block = useful[number % len(useful)]
                key = f"tissue-{tissue.split()[0]}-{number:03}"
                found = spots[plane, block]
                spot = found[jitter(len(found) - 1, key, "spot")]
                picture = partial(marked_view, folder, plane, *map(int, spot), key)
                yield brain(key, f"{plane}-{block:02}", picture, tissue, (GREY, WHITE, FLUID))


def brain(key: str, patient: str, picture: partial, answer: str, options: tuple[str, ...]) -> Example:
    """One question about one slice."""
    kind = "plane" if answer in PLANES else "tissue"
    return Example(
        patient_id=patient,
        images=(picture,),
        question="In which plane is this brain slice?" if kind == "plane" else "Which tissue lies in the ring?",
        options=options,
        answer=answer,
        question_id=key,
        reasoning=worked(answer, CLUES[answer], 1 / 3, key),
        tags={"question_type": kind, "modality": "MRI T1", "finding": CLUES[answer].sign},
    )


def blocks_of(plane: str) -> list[range]:
    """Blocks of slice numbers of a plane."""
    _, first, last = PLANES[plane]
    return [range(start, start + BLOCK) for start in range(first, last - BLOCK + 2, BLOCK + GAP)]


def volume_of(folder: Path, kind: str) -> np.ndarray:
    """(X, Y, Z) uint8: "t1", or the map of grey ("gm") or white ("wm") matter."""
    return read_nifti(folder / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz")


def screen(volume: np.ndarray, plane: str) -> np.ndarray:
    """Slices of a volume as they are read on a screen: vertex or forehead up, the patient's right at the left.

    Args:
        volume: (X, Y, Z), of any type.
        plane: of `PLANES`.

    Returns:
        (N, H, W) view, 1 mm per pixel; a sagittal slice faces left.
    """
    return np.moveaxis(volume, PLANES[plane][0], 0)[:, ::-1, ::-1].transpose(0, 2, 1)


def slice_of(folder: Path, plane: str, number: int) -> Image.Image:
    """One T1 slice."""
    return Image.fromarray(np.ascontiguousarray(screen(volume_of(folder, "t1"), plane)[number]))


def whole_view(folder: Path, plane: str, number: int, key: str) -> Image.Image:
    """A whole slice on a black square, a little shifted and scaled."""
    picture = slice_of(folder, plane, number)
    side = 196 + jitter(40, key, "side")
    shift = [jitter(16, key, axis) - 8 for axis in range(2)]
    sheet = Image.new("L", (side, side))
    sheet.paste(picture, ((side - picture.width) // 2 + shift[0], (side - picture.height) // 2 + shift[1]))
    return sheet.convert("RGB")


def tissue_core(folder: Path, tissue: str) -> np.ndarray:
    """(X, Y, Z) bool: voxels that are surely of one tissue, and whose 26 neighbours are too."""
    t1, grey, white = (volume_of(folder, kind) for kind in ("t1", "gm", "wm"))
    if tissue == GREY:
        mask = grey > 0.85 * 255
    elif tissue == WHITE:
        mask = white > 0.9 * 255
    else:
        mask = (t1 > 0) & (grey.astype(np.int16) + white < 0.1 * 255)
    for axis in range(3):
        mask = mask & np.roll(mask, 1, axis) & np.roll(mask, -1, axis)  # the volume's rim is empty: nothing wraps
    return mask


def spots_in(inside: np.ndarray, plane: str, slices: range) -> np.ndarray:
    """(N, 3) slice, row and column on the screen of the voxels of a mask in a block of slices."""
    return np.argwhere(screen(inside, plane)[slices.start : slices.stop]) + np.array([slices.start, 0, 0])


def marked_view(folder: Path, plane: str, number: int, row: int, column: int, key: str) -> Image.Image:
    """The surroundings of a point, enlarged, with a ring around it."""
    shift = [jitter(8, key, axis) - 4 for axis in range(2)]
    left, top = column - VIEW // 2 + shift[0], row - VIEW // 2 + shift[1]
    view = slice_of(folder, plane, number).crop((left, top, left + VIEW, top + VIEW))
    view = view.resize((VIEW * ZOOM,) * 2, Image.Resampling.BICUBIC).convert("RGB")
    x, y, radius = ZOOM * (column - left + 0.5), ZOOM * (row - top + 0.5), ZOOM * RING
    ImageDraw.Draw(view).ellipse((x - radius, y - radius, x + radius, y + radius), outline="yellow", width=2)
    return view
