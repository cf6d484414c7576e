"""Which pictures look alike, and which page of a file is one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from datamodules.batch import Look, PictureError, Seen, load_image, looked_at
from datamodules.shown import Frames

GRID = 16
"""The difference hash compares the cells of a 17 x 16 thumbnail: 256 bits."""
STEP = 4
"""Grey levels by which a cell must exceed its left neighbour to set its bit."""


@dataclass(frozen=True)
class Paged:
    """A file that may have several pages or frames, of which a setting chooses one."""

    file: Path
    frames: Frames

    def __call__(self) -> Image.Image:
        """Decode the page."""
        return load_image(self)

    def look_at(self, look: Look[Seen]) -> Seen:
        """As of `datamodules.batch.opened`."""
        try:
            return looked_at(self.file, str(self.file), look)
        except FileNotFoundError as error:
            raise PictureError("missing", f"{self.file}: no such image file") from error


def difference_hash(image: Image.Image) -> np.ndarray:
    """A fingerprint that survives another size, another compression and small changes of brightness.

    Each bit says whether a cell of a grey 17 x 16 thumbnail is brighter than its left neighbour by more than `STEP`
    levels.

    Returns:
        (4,) uint64, 256 bits.

    Source: Krawetz, "Kind of Like That" (2013), the difference hash; ours has a threshold and 256 bits.
    Choice: without the threshold, compression noise decides every bit of a radiograph's black border.
    """
    small = np.asarray(image.convert("L").resize((GRID + 1, GRID), Image.Resampling.BOX), dtype=np.int16)
    bits = (small[:, 1:] - small[:, :-1]) > STEP
    return np.packbits(bits).view(np.uint64)


def bit_count(hashes: np.ndarray) -> np.ndarray:
    """Set bits of each hash: (..., 4) uint64 to (...,) int."""
    return np.bitwise_count(hashes).sum(axis=-1, dtype=np.int64)
