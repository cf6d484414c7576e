"""Files of pictures: where they may lie, what is wrong with them, and which look alike."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from PIL import Image

from datamodules.batch import BadExampleError, Look, PictureError, Seen, load_image, looked_at
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


def inside_root(path: Path, root: Path) -> None:
    """Refuse a picture outside the data set's folder, symbolic links resolved.

    Raises:
        BadExampleError: names the path and the root.
    """
    if not path.resolve().is_relative_to(root.resolve()):
        raise BadExampleError(f"{path}: lies outside the data set's root {root}; absolute paths and '..' are refused")


def find_picture(root: Path, folders: Sequence[str], name: str) -> Path:
    """The file that a row names, in the first of the folders that holds it.

    Args:
        root: of the data set.
        folders: below the root; "" is the root itself.
        name: as the row has it; composed and decomposed accents are the same name.

    Returns:
        The path, in the first folder where no folder holds the file: it will be counted as missing.

    Raises:
        BadExampleError: the name is empty, absolute, a URL, or leads out of the root, symbolic links resolved.
    """
    if not name or "\0" in name or "://" in name:
        raise BadExampleError(f"picture {name!r}: expected the name of a file below the root {root}")
    parts = PureWindowsPath(name)  # knows both separators, drives and shares
    if parts.is_absolute() or parts.drive or PurePosixPath(name).is_absolute() or ".." in parts.parts:
        raise BadExampleError(f"picture {name!r}: lies outside the root {root}; absolute paths and '..' are refused")
    for folder in folders:
        for spelling in dict.fromkeys((name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD")))):
            path = root / folder / spelling
            if os.path.exists(path):
                inside_root(path, root)
                return path
    return root / folders[0] / name


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
