"""How a dermatoscopic lesion looks: outline, border, colours and structures from the four ABCD quantities.

Choice: asymmetry shows in the outline and in where the colours lie; every structure lies symmetrically.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from datamodules.phantoms.drawing import SIZE, Field, develop, grid, smooth_noise, soft

COLOURS = {
    "light brown": (0.69, 0.46, 0.29),
    "dark brown": (0.40, 0.23, 0.13),
    "black": (0.10, 0.07, 0.07),
    "red": (0.74, 0.28, 0.27),
    "blue-gray": (0.40, 0.46, 0.58),
    "white": (0.94, 0.90, 0.87),
}
STRUCTURES = ("network", "structureless", "dots", "globules", "streaks")


@dataclass(frozen=True)
class Lesion:
    """One patient's lesion.

    Attributes:
        asymmetry: A.
        border: B.
        colours: the C colours, outermost first.
        structures: the D structures.
        radius: mean radius in pixels.
        axis: direction of the first axis, in radians.
        difficulty: as in the configuration.
        seed: of the drawing's noise.
    """

    asymmetry: int
    border: int
    colours: tuple[str, ...]
    structures: tuple[str, ...]
    radius: float
    axis: float
    difficulty: float
    seed: int


def outline(case: Lesion, psi: Field) -> Field:
    """Radius of the border in pixels in direction psi from the axis.

    cos(2 psi) alone is even about both axes (A = 0); cos(psi) and cos(3 psi) are even about the first only (A = 1); the
    sines added for A = 2 are even about neither.
    """
    wave = 0.06 * np.cos(2 * psi)
    if case.asymmetry >= 1:
        wave = wave + 0.16 * np.cos(psi) + 0.13 * np.cos(3 * psi)
    if case.asymmetry == 2:
        wave = wave + 0.17 * np.sin(2 * psi + 0.4) + 0.08 * np.sin(5 * psi)
    return case.radius * (1 + wave) * (1, 0.92, 0.88)[case.asymmetry]


def draw_lesion(case: Lesion) -> Image.Image:
    """Compose skin, pigment with soft and abrupt edges, inner colours and structures, then develop."""
    rng = np.random.default_rng(case.seed)
    x, y = grid()
    dx, dy = x - SIZE / 2, y - SIZE / 2
    distance, psi = np.hypot(dx, dy), np.arctan2(dy, dx) - case.axis
    edge = outline(case, psi)
    skin = np.array([0.90, 0.71, 0.62]) * rng.uniform(0.92, 1.06) + rng.uniform(-0.02, 0.02, 3)
    picture = (
        skin.astype(np.float32) + 0.015 * smooth_noise(rng, 20)[:, :, None] + 0.012 * smooth_noise(rng, 5)[:, :, None]
    )
    abrupt = np.arange(8) < case.border  # one after another from the axis
    softness = np.where(abrupt[np.floor((psi % (2 * np.pi)) / (np.pi / 4)).astype(int) % 8], 0.5, 4.5)
    ragged = distance + 0.9 * smooth_noise(rng, 24)
    lesion = soft(edge - ragged, softness)
    mottle = 1 + 0.10 * smooth_noise(rng, 28)
    picture = lay(picture, COLOURS[case.colours[0]], 0.86 * mottle * lesion)
    for colour, coverage in colour_patches(case, ragged, psi, edge):
        picture = lay(picture, COLOURS[colour], 0.86 * mottle * coverage * lesion)
    for structure in case.structures:
        shade, coverage = STRUCTURE_MASKS[structure](ragged, psi, edge, dx, dy, case.axis)
        picture = lay(picture, shade, coverage * np.maximum(lesion, 0.8 * (structure == "streaks")))
    hairs = hair_mask(rng, case.difficulty)
    return develop(lay(picture, (0.25, 0.18, 0.14), hairs), rng, case.difficulty, max_degrees=30.0)


def lay(under: Field, colour: tuple[float, float, float], coverage: Field) -> Field:
    """Lay a plain colour on a colour field."""
    return under + (np.asarray(colour, dtype=np.float32) - under) * coverage[:, :, None].astype(np.float32)


def colour_patches(case: Lesion, distance: Field, psi: Field, edge: Field) -> list[tuple[str, Field]]:
    """Inner colours, each in a place of its own: rings at A = 0, strung along the axis at A = 1, scattered at A = 2."""
    along, across = distance * np.cos(psi), distance * np.sin(psi)
    patches = []
    for slot, colour in enumerate(list(COLOURS)[1:]):
        if colour not in case.colours:
            continue
        if case.asymmetry == 0:
            outer, inner = 0.80 - 0.155 * slot, 0.66 - 0.155 * slot
            inside = np.minimum(outer - distance / edge, distance / edge - inner if slot < 4 else 1.0)
            coverage = soft(inside * case.radius, 0.9)
        else:
            place, turn = (0.33 * slot - 0.58, 0.0) if case.asymmetry == 1 else (0.52, 0.7 + 1.2566 * slot)
            centre = (place * case.radius * np.cos(turn), place * case.radius * np.sin(turn))
            size = case.radius * (0.20 if case.asymmetry == 1 else 0.27)
            coverage = soft(size - np.hypot(along - centre[0], (across - centre[1]) * 0.8), 1.4)
        patches.append((colour, coverage))
    return patches


def network(distance: Field, psi: Field, edge: Field, dx: Field, dy: Field, axis: float):
    """Brown meshwork over the outer half."""
    u, v = dx * np.cos(axis) + dy * np.sin(axis), dy * np.cos(axis) - dx * np.sin(axis)
    mesh = np.maximum(np.cos(u * 1.05) ** 8, np.cos(v * 1.05) ** 8)
    return (0.24, 0.13, 0.07), 0.5 * mesh * soft(distance - 0.52 * edge, 2.0) * soft(0.97 * edge - distance, 2.0)


def structureless(distance: Field, psi: Field, edge: Field, dx: Field, dy: Field, axis: float):
    """A flat tan band around the middle."""
    return (0.78, 0.60, 0.46), 0.75 * soft(0.08 * edge - np.abs(distance - 0.44 * edge), 1.2)


def dots(distance: Field, psi: Field, edge: Field, dx: Field, dy: Field, axis: float):
    """Sixteen small black dots in a ring near the border."""
    return (0.03, 0.02, 0.02), ring_of_spots(distance, psi, edge, 16, 0.86, 1.2)


def globules(distance: Field, psi: Field, edge: Field, dx: Field, dy: Field, axis: float):
    """Nine round brown globules in an inner ring."""
    return (0.22, 0.10, 0.05), ring_of_spots(distance, psi, edge, 9, 0.64, 2.5)


def streaks(distance: Field, psi: Field, edge: Field, dx: Field, dy: Field, axis: float):
    """Twenty tapering spokes that leave the border."""
    outward = np.clip((distance / edge - 0.80) / 0.36, 0, 1)
    spoke = soft(1.7 * (1 - outward) - np.abs(np.sin(10 * psi)) * edge / 10, 0.35)
    return (0.20, 0.11, 0.07), 0.8 * spoke * soft(distance - 0.82 * edge, 0.8) * (outward < 1)


STRUCTURE_MASKS = dict(zip(STRUCTURES, (network, structureless, dots, globules, streaks), strict=True))


def ring_of_spots(distance: Field, psi: Field, edge: Field, count: int, place: float, radius: float) -> Field:
    """Coverage of `count` spots spread evenly at a fraction `place` of the way to the border."""
    turn = (psi * count / (2 * np.pi) + 0.5) % 1 - 0.5
    along = turn * 2 * np.pi / count * distance
    return soft(radius - np.hypot(along, distance - place * edge), 0.4)


def hair_mask(rng: np.random.Generator, difficulty: float) -> Field:
    """Up to six thin hairs across the picture, the classic artefact."""
    x, y = grid()
    total = np.zeros_like(x + y)
    for angle, offset, bend in rng.uniform(-1, 1, (6, 3))[: round(6 * difficulty)]:
        normal = np.cos(3 * angle) * (x - SIZE / 2) + np.sin(3 * angle) * (y - SIZE / 2)
        along = np.sin(3 * angle) * (x - SIZE / 2) - np.cos(3 * angle) * (y - SIZE / 2)
        total = np.maximum(total, 0.6 * soft(0.6 - np.abs(normal - 45 * offset - 0.002 * bend * along**2), 0.25))
    return total
