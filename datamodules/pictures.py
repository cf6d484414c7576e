"""Which pictures look alike."""

from __future__ import annotations

import numpy as np
from PIL import Image

GRID = 16
"""The difference hash compares the cells of a 17 x 16 thumbnail: 256 bits."""
STEP = 4
"""Grey levels by which a cell must exceed its left neighbour to set its bit."""


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
