"""Ophthalmology: which part of the eye's fundus does a small window show?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from typing_extensions import override

from datamodules.assets import require_assets
from datamodules.base import VQADataModule, uniform_hash
from datamodules.batch import Example
from datamodules.windows import TURNS, jitter, window
from datamodules.worked import Clue, worked

DISC, MACULA, VESSEL, BACKGROUND = "optic disc", "macula", "vessel", "background"
CLUES = {
    DISC: Clue("pale yellow bright area", "nerve fibres leave where no pigment lies", MACULA, "the macula is dark"),
    MACULA: Clue("deep red, darker towards one spot", "macular pigment absorbs light", VESSEL, "no band has edges"),
    VESSEL: Clue("a dark red band with edges", "blood absorbs green light", BACKGROUND, "plain fundus has no band"),
    BACKGROUND: Clue("plain even orange red", "the choroid shines through evenly", VESSEL, "no dark band crosses it"),
}
CELL, SIDE = 64, 54
"""Sides of a cell and of the windows inside it, in pixels."""
PER_REGION = 240
"""Questions per region, shared out over its cells."""
DISC_CENTRE, DISC_RADIUS = (218, 650), 100
MACULA_CENTRE, MACULA_RADIUS = (708, 702), 150
"""(x, y) and radius in pixels of the 1411-pixel photograph, read off it by eye; the disc is about 200 pixels wide."""
FIELD_CENTRE, FIELD_RADIUS = (705, 703), 660
"""The lit circle, less its blurred rim."""


class FundusRegions(VQADataModule):
    """Windows of 54 pixels from one fundus photograph; the region is told by place, a vessel by its darkness.

    The photograph is divided into cells of 64 pixels; a cell is a patient and every window stays inside its cell, so
    no pixel is in two splits. It is one eye all the same: the score says that the regions of this eye are known, and
    windows of one cell are not independent. Windows are jittered and turned to share out `PER_REGION` questions.

    Source: Haggstrom, doi:10.15347/wjm/2014.008, CC0, in the package scikit-image.
    Choice: the labels are ours. Disc and macula are circles placed by eye; a vessel is a window of which at least 12 %
        is darker in green than its surroundings, background one with at most 2 %; windows in between are left out.
    """

    @dataclass(frozen=True)
    class Config(VQADataModule.Config):
        """As every data set."""

        root: str = "assets"
        """Folder that `python -m datamodules.assets` filled."""

    @override
    def examples(self) -> Iterator[Example]:
        path = require_assets(self.root, ["fundus"])["fundus"] / "retina.jpg"
        for region, cells in cells_by_region(path).items():
            for index in range(PER_REGION):
                column, row = cells[index % len(cells)]
                question_id = f"fundus-{region.replace(' ', '-')}-{index:03}"
                left, top = (
                    CELL * at + jitter(CELL - SIDE, question_id, axis) for axis, at in enumerate((column, row))
                )
                yield Example(
                    patient_id=f"fundus-cell-{column:02}-{row:02}",
                    images=(partial(window, path, left, top, SIDE, index // len(cells) % len(TURNS)),),
                    question="Which region of the fundus is this?",
                    options=(DISC, MACULA, VESSEL, BACKGROUND),
                    answer=region,
                    question_id=question_id,
                    reasoning=worked(region, CLUES[region], 0.25, question_id),
                    tags={
                        "question_type": "fundus_region",
                        "modality": "fundus photograph",
                        "finding": CLUES[region].sign,
                    },
                )


def cells_by_region(path: Path) -> dict[str, list[tuple[int, int]]]:
    """Region -> its (column, row) cells, in an order that spreads over the picture."""
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    vessels = vessel_map(rgb)
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    columns, rows = rgb.width // CELL, rgb.height // CELL
    for column, row in sorted(np.ndindex(columns, rows), key=lambda cell: uniform_hash("cell", *cell)):
        centre = (CELL * column + CELL / 2, CELL * row + CELL / 2)
        margin = (CELL - SIDE) // 2
        inner = vessels[
            CELL * row + margin : CELL * (row + 1) - margin, CELL * column + margin : CELL * (column + 1) - margin
        ]
        region = region_of(centre, float(inner.mean()))
        if region:
            found[region].append((column, row))
    return dict(found)


def region_of(centre: tuple[float, float], vessel_share: float) -> str | None:
    """The region of a cell, or None where it is not clear."""
    if distance(centre, FIELD_CENTRE) > FIELD_RADIUS - CELL:
        return None
    if distance(centre, DISC_CENTRE) < DISC_RADIUS:
        return DISC
    if distance(centre, MACULA_CENTRE) < MACULA_RADIUS:
        return MACULA if vessel_share < 0.1 else None
    if distance(centre, DISC_CENTRE) < 1.6 * DISC_RADIUS or distance(centre, MACULA_CENTRE) < 1.4 * MACULA_RADIUS:
        return None
    return VESSEL if vessel_share >= 0.12 else BACKGROUND if vessel_share <= 0.02 else None


def distance(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Of two points, in pixels."""
    return float(np.hypot(a[0] - b[0], a[1] - b[1]))


def vessel_map(rgb: Image.Image) -> np.ndarray:
    """(H, W) bool: pixels whose green value is at least 10 levels below its blurred surroundings.

    Green is the channel that haemoglobin darkens most; the blur, of 20 pixels, is wider than the widest vessel.
    """
    green = rgb.getchannel("G")
    smooth, around = (np.asarray(green.filter(ImageFilter.GaussianBlur(r)), dtype=np.float32) for r in (1.5, 20))
    return around - smooth >= 10
