"""Frontal chest films: heart size by the cardiothoracic ratio, pleural fluid by the costophrenic angles.

Source: cardiothoracic ratio, greatest heart width over greatest inner chest width, enlarged above 0.50: Danzer CS,
    Am J Med Sci 1919;157:513-521. Blunting of the lateral costophrenic angle as the film sign of pleural effusion:
    Collins JD et al., Radiology 1972;105:51-53. On a frontal film the patient's left is on the viewer's right.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from math import ceil, floor
from typing import ClassVar

import numpy as np
from PIL import Image
from typing_extensions import override

from datamodules.phantoms.base import PhantomDataModule, Question, Reading, bayesian_body, draw_class, far_from
from datamodules.phantoms.drawing import SIZE, Field, blend, develop, ellipse, grid, marker, painted, smooth_noise, soft
from datamodules.phantoms.truth import IS, Finding, Values

CUTOFF = 0.50
"""Cardiothoracic ratio above which the heart counts as enlarged."""
FLUID = {
    (False, False): "no effusion",
    (True, False): "right effusion",
    (False, True): "left effusion",
    (True, True): "both sides",
}
"""(viewer's left angle blunt, viewer's right angle blunt) -> verdict in the patient's own sides."""
ANGLES = ("left", "right")
"""The viewer's sides, in the order of `Film.blunt`."""
LEVELS = (10.0, 14.0)
"""A height of fluid on either side of what the traces call clear: no finding, so both must be allowed for."""
DOME = 82.0
"""Height of the diaphragm's domes, in pixels from the top."""


@dataclass(frozen=True)
class Film:
    """One patient's film.

    Attributes:
        heart: greatest heart width in pixels.
        chest: greatest inner chest width in pixels.
        blunt: whether the angle on the viewer's left, and on the viewer's right, is blunted.
        level: height of the fluid above the angle, in pixels.
        difficulty: as in the configuration.
        seed: of the drawing's noise.
    """

    heart: int
    chest: int
    blunt: tuple[bool, bool]
    level: float
    difficulty: float
    seed: int

    @property
    def ratio(self) -> float:
        """Cardiothoracic ratio, to two decimals."""
        return round(self.heart / self.chest, 2)


class ChestFilms(PhantomDataModule):
    """Adult chest films with two questions: heart size and pleural fluid."""

    PREFIX: ClassVar = "chest"
    MODALITY: ClassVar = "X-ray"
    GENRE: ClassVar = "chest film"
    PREVALENCE: ClassVar = {
        "heart_size": {"normal": 0.5, "enlarged": 0.5},
        "effusion": dict.fromkeys(FLUID.values(), 0.25),
    }
    # Choice: a twentieth of a width, and three hundredths of the ratio, which is what two such widths are worth.
    FINDINGS: ClassVar = {
        "heart": Finding({r"\bheart (\d+) of \d+": ""}, within=3, low=20, high=100),
        "chest": Finding({r"\bheart \d+ of (\d+)": ""}, within=4, low=60, high=112),
        "ratio": Finding({rf"(?<!likelihood )\bratio {IS}([01]\.\d+)": ""}, within=0.03, low=0.2, high=1),
        **{
            f"{side} angle": Finding(
                {
                    rf"\bviewer {side} (?:angle )?(?:is )?(sharp|blunt)\b": "",
                    r"\bboth angles are (sharp|blunt)\b": "",
                    rf"\bonly the viewer {side} angle is blunt\b": "blunt",
                    rf"\bonly the viewer {other} angle is blunt\b": "sharp",
                }
            )
            for side, other in (ANGLES, ANGLES[::-1])
        },
    }
    NEEDED: ClassVar = {"heart_size": ("ratio",), "effusion": ("left angle", "right angle")}

    @classmethod
    @override
    def sample(cls, rng: random.Random, difficulty: float) -> Film:
        size = draw_class(rng, cls.PREVALENCE["heart_size"])
        fluid = draw_class(rng, cls.PREVALENCE["effusion"])
        chest = rng.randint(80, 96)
        gap = 0.01 + 0.04 * (1 - difficulty)
        low, high = (0.36, CUTOFF - gap) if size == "normal" else (CUTOFF + gap, 0.66)
        return Film(
            heart=round(chest * rng.uniform(low, high)),
            chest=chest,
            blunt=next(angles for angles, name in FLUID.items() if name == fluid),
            level=rng.uniform(12, 20) - 4 * difficulty,
            difficulty=difficulty,
            seed=rng.getrandbits(32),
        )

    @classmethod
    @override
    def readings(cls, case: Film) -> list[Reading]:
        hundredths = round(100 * case.ratio)
        ratios = tuple(f"ratio {other / 100:.2f}" for other in far_from(hundredths, range(36, 68), 6))
        angles = angle_words(case)
        pairs = tuple(angle_label(blunt) for blunt in FLUID if blunt != case.blunt)
        return [
            Reading("read the heart and chest width.", width_words(case), f"ratio {case.ratio:.2f}", ratios),
            Reading("read both lower lung angles.", angles, angle_label(case.blunt), pairs),
        ]

    @classmethod
    @override
    def questions(cls, case: Film, rng: random.Random) -> list[Question]:
        return [heart_size(case, rng), effusion(case, rng)]

    @classmethod
    @override
    def found(cls, case: Film) -> Values:
        angles = {f"{side} angle": blunt_or_sharp(blunt) for side, blunt in zip(ANGLES, case.blunt, strict=True)}
        return {"heart": case.heart, "chest": case.chest, "ratio": case.ratio, **angles}

    @classmethod
    @override
    def supposed(cls, case: Film, stated: Values) -> list[Film]:
        said = {**cls.found(case), **stated}
        heart, chest, ratio = int(said["heart"]), int(said["chest"]), said["ratio"]
        if "ratio" in stated:  # it decides, and is a reading too
            if {"heart", "chest"} <= set(stated) and not cls.FINDINGS["ratio"].agrees(heart / chest, ratio):
                return []
            heart = floor(ratio * chest + 1e-9) if ratio <= CUTOFF else ceil(ratio * chest - 1e-9)
        blunt = tuple(said[f"{side} angle"] == "blunt" for side in ANGLES)
        film = replace(case, heart=heart, chest=chest, blunt=blunt)
        return [replace(film, level=level) for level in LEVELS]

    @staticmethod
    @override
    def draw(case: Film) -> Image.Image:
        return draw_film(case)


def width_words(case: Film) -> str:
    """The heart's reading."""
    return f"heart {case.heart} of {case.chest}, ratio {case.ratio:.2f}"


def angle_words(case: Film) -> str:
    """The angles' reading, in the viewer's sides."""
    left, right = map(blunt_or_sharp, case.blunt)
    return f"viewer left {left}, viewer right {right}"


def angle_label(blunt: tuple[bool, bool]) -> str:
    """Short name of a pair of angles, the viewer's left first."""
    return " then ".join(map(blunt_or_sharp, blunt))


def blunt_or_sharp(blunt: bool) -> str:
    """An angle in a word."""
    return "blunt" if blunt else "sharp"


def heart_size(case: Film, rng: random.Random) -> Question:
    """Normal up to a ratio of 0.50, enlarged above."""
    half = case.chest / 2
    big = case.ratio > CUTOFF
    answer, other = ("enlarged", "normal") if big else ("normal", "enlarged")
    side, wrong = ("above", "at most") if big else ("below", "more than")
    cause = "its chambers stretch under volume load" if big else "its chambers carry no extra volume"
    look = rng.choice(
        ("wide heart shadow, textbook cardiomegaly", "globular heart at first sight")
        if big
        else ("slim heart shadow, textbook silhouette", "unremarkable heart at first sight")
    )
    differential = rng.choice(
        (
            f"{answer} fits, the ratio is {side} 0.50. {other} is unlikely because it needs {wrong} 0.50",
            f"{answer} versus {other}: ratio {side} 0.50. {other} is excluded because it needs {wrong} 0.50",
        )
    )
    analytical = rng.choice(
        (
            f"half the chest is {half:.0f} and the heart is {side} it because {cause}, which means a ratio {side} 0.50",
            f"because {cause}, the shadow lies {side} half the chest, {half:.0f}, which means a ratio {side} 0.50",
        )
    )
    clear = abs(case.heart / case.chest - CUTOFF) > 0.07
    bodies = {
        "differential": differential,
        "intuitive": look,
        "analytical": analytical,
        "bayesian": bayesian_body(rng, 0.5, clear, f"ratio {side} 0.50"),
    }
    return Question("heart_size", "What is the heart size on this chest film?", answer, width_words(case), bodies)


def effusion(case: Film, rng: random.Random) -> Question:
    """Fluid where the angle is blunt; the viewer's left is the patient's right."""
    answer = FLUID[case.blunt]
    other = rng.choice([name for name in FLUID.values() if name != answer])
    seen = {
        "no effusion": "both angles are sharp",
        "both sides": "both angles are blunt",
        "right effusion": "only the viewer left angle is blunt",
        "left effusion": "only the viewer right angle is blunt",
    }
    cause = "no fluid pools there" if answer == "no effusion" else "fluid pools lowest and climbs the chest wall"
    looks = {
        "no effusion": ("clean angles", "crisp diaphragm"),
        "both sides": ("two menisci", "fluid all along the base"),
    }.get(answer, ("one sided meniscus", "a single white corner"))
    differential = rng.choice(
        (
            f"{answer} fits since {seen[answer]}. {other} is unlikely because {seen[other]} there",
            f"{answer} versus {other}: {seen[answer]}. {other} is excluded because then {seen[other]}",
        )
    )
    place = {
        "no effusion": "a dry chest",
        "both sides": "fluid at each base",
        "right effusion": "fluid at the patient's right base",
        "left effusion": "fluid at the patient's left base",
    }[answer]
    analytical = rng.choice(
        (
            f"{seen[answer]} because {cause}. films mirror the patient, which means {place}",
            f"because {cause}, {seen[answer]}. films mirror the patient, therefore {place}",
        )
    )
    bodies = {
        "differential": differential,
        "intuitive": rng.choice(looks),
        "analytical": analytical,
        "bayesian": bayesian_body(rng, 0.25, case.level > 11, "this pair of angles"),
    }
    return Question("effusion", "Where does this chest film show pleural fluid?", answer, angle_words(case), bodies)


def draw_film(case: Film) -> Image.Image:
    """Compose lungs, ribs, mediastinum, heart, diaphragm and fluid as brightness, then develop."""
    rng = np.random.default_rng(case.seed)
    x, y = grid()
    middle, half = SIZE / 2, case.chest / 2
    across = np.abs(x - middle)
    lungs = lung_mask(case, rng)
    body = soft(half + 10 - across, 1.0) * soft(y - 2 - 0.009 * across**2, 2.0)
    film = 0.03 + 0.55 * body
    film = blend(film, 0.74, body * soft(y - DOME, 5.0))  # abdomen
    film = blend(film, 0.16 + 0.02 * smooth_noise(rng, 12), lungs)
    film = film + 0.10 * vessels(rng) * lungs + 0.11 * ribs(half, rng) * np.maximum(lungs, 0.35 * body)
    spine = soft(5.5 - across, 1.5)
    film = blend(film, 0.66, 0.9 * soft(10 - across + 0.05 * (y - 40), 2.0) * soft(y - 6, 3.0))
    film = film + 0.05 * spine * (0.6 + 0.4 * np.sin(y * 0.9))
    film = blend(film, 0.72, heart_mask(case, rng))
    film = blend(film, 0.66, ellipse(middle + 9, 34, 6.5, 7.5, 1.2))  # aortic knob
    film = film - 0.16 * soft(3.0 - across, 0.8) * soft(36 - y, 2.0) * soft(y - 2, 2.0)  # trachea
    film = film - 0.30 * ellipse(middle + half * 0.55, DOME + 11, 8, 4.5, 1.5)  # gas in the stomach
    film = blend(film, 0.95, 0.8 * marker("R", 4, 3))
    return develop(film, rng, case.difficulty)


def lung_mask(case: Film, rng: np.random.Generator) -> Field:
    """Air: bounded by the ribcage, greatest at the width of the chest, and below by domes and fluid."""
    x, y = grid()
    half = case.chest / 2
    apex = 12 + rng.uniform(-2, 2)
    height = np.clip((y - apex) / (72 - apex), 0, 1)
    wall = half * (0.30 + 0.70 * np.sqrt(1 - (1 - height) ** 2.2)) * (y > apex - 1)
    across = np.abs(x - SIZE / 2)
    mask = np.minimum(soft(wall - across, 0.7), soft(y - apex, 1.2))
    lateral = np.clip(across / half, 0, 1.2)
    for is_right, blunt in enumerate(case.blunt):
        side = (x > SIZE / 2) if is_right else (x <= SIZE / 2)
        dome = DOME + (2.5 if is_right else -1.0) + 15 * np.clip(lateral - 0.55, 0, 1) ** 2 / 0.2
        fluid = DOME + 12 - (case.level + 12) * np.clip((lateral - 0.25) / 0.75, 0, 1.1) ** 1.6
        floor = np.minimum(dome, fluid) if blunt else dome
        mask = np.where(side, np.minimum(mask, soft(floor - y, 1.6 if blunt else 0.8)), mask)
    return mask.astype(np.float32)


def heart_mask(case: Film, rng: np.random.Generator) -> Field:
    """Two half ellipses: a third of the width towards the viewer's left, two thirds with the apex to the right."""
    x, _ = grid()
    share = rng.uniform(0.30, 0.36)
    left, right = case.heart * share, case.heart * (1 - share)
    atrium = ellipse(SIZE / 2, 66, left, 20, 0.6) * (x <= SIZE / 2)
    ventricle = ellipse(SIZE / 2, 71, right, 19, 0.6) * (x > SIZE / 2)
    return atrium + ventricle


def ribs(half: float, rng: np.random.Generator) -> Field:
    """Nine pairs of posterior ribs and the collar bones."""
    middle, pitch = SIZE / 2, rng.uniform(8.6, 9.6)
    t = np.linspace(0, 1, 9)

    def paint(draw, place) -> None:
        for side in (-1, 1):
            for level in range(9):
                top = 10 + level * pitch
                reach = half * min(1.0, 0.55 + 0.11 * level)
                points = zip(middle + side * (6 + (reach - 6) * t), top - 5 * np.sin(2.2 * t) + 13 * t**2, strict=True)
                draw.line(place(list(points)), fill=200, width=8)
            draw.line(
                place([(middle + side * 7, 22), (middle + side * 24, 17), (middle + side * 46, 9)]), fill=255, width=10
            )

    return painted(paint)


def vessels(rng: np.random.Generator) -> Field:
    """Hila with branching vessels."""
    middle = SIZE / 2
    angles = rng.uniform(-1.2, 1.2, (2, 6))

    def paint(draw, place) -> None:
        for side, fan in zip((-1, 1), angles, strict=True):
            root = (middle + side * 12, 50)
            for angle in fan:
                length = 20 + 8 * np.cos(angle)
                tip = (root[0] + side * length * np.cos(angle), root[1] + length * np.sin(angle) * 1.3)
                draw.line(place([root, tip]), fill=150, width=4)

    return painted(paint) + 1.6 * ellipse(middle - 14, 50, 6, 9, 3.0) + 1.6 * ellipse(middle + 14, 48, 6, 9, 3.0)
