"""Square windows cut out of one large picture, in cells that share no pixel."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from PIL import Image

from datamodules.base import uniform_hash

TURNS = (
    None,
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_180,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
)
"""The eight ways to lay a square on itself."""


@lru_cache(maxsize=4)
def whole_picture(path: Path) -> Image.Image:
    """A large picture, decoded once: decoding it for every window would cost as much as reading the window."""
    with Image.open(path) as image:
        return image.convert("RGB")


def window(path: Path, left: int, top: int, side: int, turn: int) -> Image.Image:
    """Cut a square out of a file and turn it.

    Args:
        path: the large picture.
        left: first column, in pixels.
        top: first row, in pixels.
        side: of the square, in pixels.
        turn: index into `TURNS`.
    """
    cut = whole_picture(path).crop((left, top, left + side, top + side))
    return cut if TURNS[turn] is None else cut.transpose(TURNS[turn])


def jitter(room: int, *keys: object) -> int:
    """A whole number in 0..room that depends on the keys alone."""
    return int(uniform_hash("jitter", *keys) * (room + 1))
