"""Read a NIfTI-1 volume of bytes; the one format that the brain template comes in."""

from __future__ import annotations

import gzip
import struct
from functools import lru_cache
from pathlib import Path

import numpy as np

UINT8 = 2
HEADER = 348


class NiftiError(ValueError):
    """The file is not a NIfTI-1 volume of unsigned bytes on an axis-parallel grid."""


@lru_cache(maxsize=4)
def read_nifti(path: Path) -> np.ndarray:
    """Read a volume; the last four are kept in memory.

    Args:
        path: a `.nii.gz` file, little-endian, three axes, data type uint8 without scaling.

    Returns:
        (X, Y, Z) uint8, not writable: X to the patient's right, Y to the front, Z to the vertex.

    Raises:
        NiftiError: another kind of file.
    """
    with gzip.open(path) as file:
        content = file.read()
    if len(content) < HEADER or struct.unpack_from("<i", content)[0] != HEADER:
        raise NiftiError(f"{path}: not a little-endian NIfTI-1 file; was it downloaded whole?")
    axes, *shape = struct.unpack_from("<8h", content, 40)
    (kind,) = struct.unpack_from("<h", content, 70)
    start, slope, shift = struct.unpack_from("<3f", content, 108)
    affine = np.array(struct.unpack_from("<12f", content, 280)).reshape(3, 4)[:, :3]
    if axes != 3 or kind != UINT8 or slope not in (0, 1) or shift != 0:
        raise NiftiError(f"{path}: {axes} axes, data type {kind}, scaling {slope}, {shift}; expected 3, {UINT8}, 1, 0")
    if (affine != np.diag(affine.diagonal())).any() or (affine.diagonal() <= 0).any():
        raise NiftiError(f"{path}: the axes are not right, front, vertex: {affine.tolist()}")
    count = int(np.prod(shape[:3]))
    if len(content) < start + count:
        raise NiftiError(f"{path}: {len(content)} bytes, expected {int(start) + count}; was it downloaded whole?")
    return np.frombuffer(content, np.uint8, count, int(start)).reshape(shape[:3], order="F")
