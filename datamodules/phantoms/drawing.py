"""Drawing primitives of the phantoms: soft masks on a padded canvas, smooth noise, and the jitter of a real archive.

Coordinates are picture pixels: x to the right and y down, both 0 to `SIZE` inside the frame. Fields are
(`CANVAS`, `CANVAS`) float32 arrays that reach `MARGIN` pixels beyond the frame, so that a rotated or shifted picture
has no empty corners. Grey fields hold brightness in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SIZE = 112
"""Side of a picture in pixels: 8 x 8 patches of 14, or 4 x 4 merged tokens."""
MARGIN = 8
"""Pixels drawn beyond the frame on every side."""
CANVAS = SIZE + 2 * MARGIN
SCALE = 3
"""Supersampling of polygons and lines."""

Field = NDArray[np.float32]
Point = tuple[float, float]


@cache
def grid() -> tuple[Field, Field]:
    """Pixel centres of the canvas: x of shape (1, CANVAS) and y of shape (CANVAS, 1)."""
    centres = np.arange(CANVAS, dtype=np.float32) + 0.5 - MARGIN
    return centres[None, :], centres[:, None]


def soft(distance: Field, softness: float = 0.6) -> Field:
    """Turn a signed distance in pixels (positive inside) into coverage in (0, 1): a logistic edge."""
    return 1 / (1 + np.exp(np.clip(-distance / softness, -30, 30)))


def ellipse(cx: float, cy: float, rx: float, ry: float, softness: float = 0.6) -> Field:
    """Coverage of an axis-parallel ellipse; the edge is exact along the axes."""
    x, y = grid()
    radius = np.sqrt(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2)
    return soft((1 - radius) * min(rx, ry), softness)


def painted(paint: Callable[[ImageDraw.ImageDraw, Callable[[Sequence[Point]], list[Point]]], None]) -> Field:
    """Coverage of whatever `paint` draws in white on a supersampled canvas.

    Args:
        paint: receives the drawing context and a function that maps picture points to its coordinates; line widths
            are in supersampled pixels (`SCALE` per picture pixel).
    """
    canvas = Image.new("L", (CANVAS * SCALE, CANVAS * SCALE))

    def place(points: Sequence[Point]) -> list[Point]:
        return [((x + MARGIN) * SCALE, (y + MARGIN) * SCALE) for x, y in points]

    paint(ImageDraw.Draw(canvas), place)
    return np.asarray(canvas.reduce(SCALE), dtype=np.float32) / 255


def marker(text: str, x: float, y: float) -> Field:
    """Coverage of a small side marker whose upper left corner is at (x, y)."""
    canvas = Image.new("L", (CANVAS, CANVAS))
    ImageDraw.Draw(canvas).text((x + MARGIN, y + MARGIN), text, fill=255, font_size=9)
    return np.asarray(canvas, dtype=np.float32) / 255


def smooth_noise(rng: np.random.Generator, cells: int) -> Field:
    """Band-limited noise: standard normal values on a cells x cells grid, interpolated over the canvas."""
    coarse = Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((CANVAS, CANVAS), Image.Resampling.BICUBIC), dtype=np.float32)


def blend(under: Field, over: Field | float, coverage: Field) -> Field:
    """Lay `over` on `under` where `coverage` says so."""
    return under + (over - under) * coverage


def develop(field: Field, rng: np.random.Generator, difficulty: float, *, max_degrees: float = 8.0) -> Image.Image:
    """Turn a grey (CANVAS, CANVAS) or colour (CANVAS, CANVAS, 3) field into a picture as an archive would hold it.

    Every distraction scales with `difficulty`: rotation up to `max_degrees`, shift up to 5 pixels, contrast within
    40 %, brightness within 0.2, uneven exposure of standard deviation 0.1, grain of 0.09. At 0 the field is only
    cropped and quantised.

    Args:
        field: brightness in [0, 1]; values outside are clipped at the end.
        rng: source of the distractions, the picture's own.
        difficulty: in [0, 1].
        max_degrees: rotation at difficulty 1, either way.
    """
    degrees, dx, dy, gain, offset = rng.uniform(-1, 1, 5)
    shading = smooth_noise(rng, 4) * 0.1 + rng.standard_normal((CANVAS, CANVAS), dtype=np.float32) * 0.09
    if field.ndim == 3:
        shading = shading[:, :, None]
    exposed = (field - 0.5) * (1 + 0.4 * difficulty * gain) + 0.5 + 0.2 * difficulty * offset + difficulty * shading
    image = Image.fromarray((np.clip(exposed, 0, 1) * 255).astype(np.uint8))
    if difficulty > 0:
        image = image.rotate(
            degrees * max_degrees * difficulty,
            Image.Resampling.BICUBIC,
            translate=(round(5 * difficulty * dx), round(5 * difficulty * dy)),
            fillcolor=image.getpixel((2, 2)),
        )
    return image.crop((MARGIN, MARGIN, MARGIN + SIZE, MARGIN + SIZE)).convert("RGB")
