"""Standing films of a growing spine: scoliosis by the Cobb angle, and the side of its convexity.

Source: angle between the most tilted vertebrae: Cobb JR, Instr Course Lect 1948;5:261-275. Scoliosis from 10 degrees,
    observation below 25, brace from 25 while growing: SOSORT guidelines, Negrini S et al., Scoliosis Spinal Disord
    2018;13:3. Surgery considered from 45 to 50 degrees: Weinstein SL et al., Lancet 2008;371:1527-1537.
Choice: whole degrees, cut-offs 10, 25 and 45 (the lower of the two in use for surgery). Films are shown as seen from
    behind, the habit in scoliosis work, so the patient's right is on the viewer's right.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from PIL import Image
from typing_extensions import override

from datamodules.phantoms.base import PhantomDataModule, Question, Reading, bayesian_body, draw_class, far_from
from datamodules.phantoms.drawing import SIZE, Field, blend, develop, ellipse, grid, marker, painted, smooth_noise, soft
from datamodules.phantoms.truth import IS, Finding, Values

GRADES = {"no scoliosis": (0, 9), "mild": (10, 24), "moderate": (25, 44), "severe": (45, 70)}
"""Grade -> lowest and highest whole degree; what follows is discharge, observation, brace, surgery."""
STRAIGHT = GRADES["mild"][0]
"""Degrees below which a curve has no side."""
PITCH = 6.8
"""Pixels from one vertebra to the next."""


@dataclass(frozen=True)
class SpineFilm:
    """One patient's film.

    Attributes:
        cobb: Cobb angle in whole degrees.
        side: side of the convexity, +1 for the viewer's right.
        top: start of the curved stretch, in pixels from the top.
        length: of the curved stretch, in pixels along the spine.
        difficulty: as in the configuration.
        seed: of the drawing's noise.
    """

    cobb: int
    side: int
    top: float
    length: float
    difficulty: float
    seed: int

    @property
    def grade(self) -> str:
        """The severity that the angle gives."""
        return next(name for name, (low, high) in GRADES.items() if low <= self.cobb <= high)


class SpineFilms(PhantomDataModule):
    """Spine films of children with two questions: severity and side."""

    PREFIX: ClassVar = "spine"
    MODALITY: ClassVar = "X-ray"
    GENRE: ClassVar = "spine film"
    PREVALENCE: ClassVar = {
        "severity": {"no scoliosis": 0.28, "mild": 0.24, "moderate": 0.24, "severe": 0.24},
        "convexity": {"left convex": 0.36, "right convex": 0.36, "no curve": 0.28},
    }
    # 5 degrees is the usual reading error of the angle.
    FINDINGS: ClassVar = {
        "curve": Finding({rf"\bcurve {IS}(\d+)(?!\.?\d)(?: degrees?\b)?": ""}, within=5, low=0, high=70),
        "apex": Finding({r"\bapex (?:is |at |sits at )?(?:the )?(viewer left|viewer right|midline)\b": ""}),
    }
    NEEDED: ClassVar = {"severity": ("curve",), "convexity": ("apex",)}

    @classmethod
    @override
    def sample(cls, rng: random.Random, difficulty: float) -> SpineFilm:
        low, high = GRADES[draw_class(rng, cls.PREVALENCE["severity"])]
        gap = round(4 * (1 - difficulty))
        return SpineFilm(
            cobb=rng.randint(low + (gap if low else 0), high - (gap if high < 70 else 0)),
            side=rng.choice((-1, 1)),
            top=rng.uniform(4, 12),
            length=rng.uniform(84, 94),
            difficulty=difficulty,
            seed=rng.getrandbits(32),
        )

    @classmethod
    @override
    def readings(cls, case: SpineFilm) -> list[Reading]:
        degrees = tuple(f"{other:02d} degrees" for other in far_from(case.cobb, range(70), 12))
        sides = tuple(name for name in ("viewer left", "viewer right", "midline") if name != apex(case))
        return [
            Reading("read the curve of the spine.", curve_words(case), f"{case.cobb:02d} degrees", degrees),
            Reading("read where the curve has its apex.", curve_words(case), apex(case), sides),
        ]

    @classmethod
    @override
    def questions(cls, case: SpineFilm, rng: random.Random) -> list[Question]:
        return [severity(case, rng), convexity(case, rng)]

    @classmethod
    @override
    def found(cls, case: SpineFilm) -> Values:
        return {"curve": case.cobb, "apex": apex(case)}

    @classmethod
    @override
    def supposed(cls, case: SpineFilm, stated: Values) -> list[SpineFilm]:
        said = {**cls.found(case), **stated}
        straight = said["apex"] == "midline"
        if "curve" not in stated and straight != (case.cobb < STRAIGHT):
            said["curve"] = 0 if straight else GRADES["moderate"][0]
        if "apex" in stated and straight != (said["curve"] < STRAIGHT):
            return []
        side = case.side if straight or "apex" not in stated else 1 if said["apex"] == "viewer right" else -1
        return [replace(case, cobb=int(said["curve"]), side=side)]

    @staticmethod
    @override
    def draw(case: SpineFilm) -> Image.Image:
        return draw_film(case)


def apex(case: SpineFilm) -> str:
    """Where the curve points, in the viewer's sides."""
    return "midline" if case.cobb < STRAIGHT else "viewer right" if case.side > 0 else "viewer left"


def curve_words(case: SpineFilm) -> str:
    """The reading of both questions."""
    return f"curve {case.cobb:02d} degrees, apex {apex(case)}"


def severity(case: SpineFilm, rng: random.Random) -> Question:
    """Grade by the cut-offs 10, 25 and 45; the rejected candidate is the nearer neighbour."""
    names, answer, angle = list(GRADES), case.grade, f"{case.cobb:02d}"
    place = names.index(answer)
    low, high = GRADES[answer]
    below_is_nearer = place == len(names) - 1 or (place > 0 and case.cobb - low < high - case.cobb)
    other = names[place - 1] if below_is_nearer else names[place + 1]
    reason = f"it ends at {GRADES[other][1]:02d}" if below_is_nearer else f"it starts at {GRADES[other][0]:02d}"
    span = f"at {low:02d} or more" if place == len(names) - 1 else f"in {low:02d} to {high:02d}"
    look = {
        "no scoliosis": ("plumb spine, discharge picture", "straight column"),
        "mild": ("gentle bow, picture to observe", "shallow bend"),
        "moderate": ("clear bow, brace picture", "plain bend, brace at once"),
        "severe": ("sharp bow, surgery picture", "buckled column, surgeon needed"),
    }[answer]
    load, plan = {
        "no scoliosis": ("growth plates are loaded evenly", "discharge"),
        "mild": ("growth plates are loaded a little unevenly", "observation"),
        "moderate": ("the concave side presses its growth plates", "a brace"),
        "severe": ("the concave side crushes its growth plates", "surgery"),
    }[answer]
    bodies = {
        "differential": rng.choice(
            (
                f"{answer} fits, {angle} lies {span}. {other} is unlikely because {reason}",
                f"{answer} versus {other}: {angle} lies {span}. {other} is excluded because {reason}",
            )
        ),
        "intuitive": rng.choice(look),
        "analytical": rng.choice(
            (
                f"because {load}, the tilt is {angle}, {span}, which means {plan}",
                f"the tilt is {angle} because {load}. {angle} lies {span}, therefore {plan} is needed",
            )
        ),
        "bayesian": bayesian_body(rng, SpineFilms.PREVALENCE["severity"][answer], clear(case), f"angle {span}"),
    }
    return Question("severity", "How severe is the scoliosis of this growing spine?", answer, curve_words(case), bodies)


def clear(case: SpineFilm) -> bool:
    """Whether the angle keeps 5 degrees, the usual reading error, from every cut-off."""
    return min(abs(case.cobb - low) for low, _ in list(GRADES.values())[1:]) >= 5


def convexity(case: SpineFilm, rng: random.Random) -> Question:
    """The side to which the curve bulges; below 10 degrees there is none."""
    apex_side = apex(case)
    answer = {"midline": "no curve", "viewer left": "left convex", "viewer right": "right convex"}[apex_side]
    needs = {"no curve": "under 10 degrees", "left convex": "an apex at left", "right convex": "an apex at right"}
    other = rng.choice([name for name in needs if name != answer])
    support = "under 10 degrees nothing counts" if answer == "no curve" else f"the apex sits at the {apex_side}"
    look = ("column upright", "no bend") if answer == "no curve" else ("bow pointing one way", "one sided bulge")
    cause = "the bodies stay square" if answer == "no curve" else "the bodies grow taller on the outer side"
    result = "no bulge" if answer == "no curve" else f"a bulge to {apex_side}"
    side = "nothing to name" if answer == "no curve" else "the same side of the child"
    bodies = {
        "differential": rng.choice(
            (
                f"{answer} fits, {support}. {other} is unlikely because it needs {needs[other]}",
                f"{answer} versus {other}: {support}. {other} is excluded because it needs {needs[other]}",
            )
        ),
        "intuitive": rng.choice(look),
        "analytical": rng.choice(
            (
                f"because {cause}, there is {result}. seen from behind sides agree, which means {side}",
                f"there is {result} because {cause}. seen from behind sides agree, therefore {side}",
            )
        ),
        "bayesian": bayesian_body(
            rng, SpineFilms.PREVALENCE["convexity"][answer], abs(case.cobb - 10) >= 5, f"apex {apex_side}"
        ),
    }
    return Question("convexity", "Seen from behind, where is this spine convex?", answer, curve_words(case), bodies)


def centre_line(case: SpineFilm) -> tuple[Field, Field, Field]:
    """Places and tilts of the vertebrae.

    The tilt is side * cobb/2 * sin(2 pi u) over the curved stretch, u from 0 to 1, and 0 beyond it: it reaches
    +cobb/2 and -cobb/2 once each, so the Cobb angle is `cobb`, and the spine returns to the midline.

    Returns:
        x and y of the centres in pixels and the tilts in radians, each (N,), from the top.
    """
    step = 0.25
    path = np.arange(-20, 150, step)
    u = np.clip((path - case.top) / case.length, 0, 1)
    tilt = case.side * np.radians(case.cobb) / 2 * np.sin(2 * np.pi * u)
    x, y = np.cumsum(np.sin(tilt)) * step, -20 + np.cumsum(np.cos(tilt)) * step
    x = x - x[-1] / 2 + SIZE / 2 - case.side * (np.abs(x).max() * 0.4)  # the bulge stays inside the frame
    every = round(PITCH / step)
    return x[::every], y[::every], tilt[::every]


def quad(x: float, y: float, tilt: float, width: float, height: float) -> list[tuple[float, float]]:
    """A waisted vertebral body: six corners, perpendicular to the spine."""
    right, down = (np.cos(tilt), -np.sin(tilt)), (np.sin(tilt), np.cos(tilt))
    outline = ((-1, -1), (1, -1), (0.86, 0), (1, 1), (-1, 1), (-0.86, 0))
    return [
        (
            x + a * width / 2 * right[0] + b * height / 2 * down[0],
            y + a * width / 2 * right[1] + b * height / 2 * down[1],
        )
        for a, b in outline
    ]


def draw_film(case: SpineFilm) -> Image.Image:
    """Compose soft tissue, lungs, ribs, pelvis and the column of vertebrae as brightness, then develop."""
    rng = np.random.default_rng(case.seed)
    x, y = grid()
    middle = SIZE / 2
    xs, ys, tilts = centre_line(case)
    trunk = soft(46 - 5 * np.sin(np.clip(y, 0, 112) / 36) - np.abs(x - middle) + 0.1 * np.maximum(y - 70, 0), 1.5)
    film = 0.04 + 0.34 * trunk + 0.03 * smooth_noise(rng, 8)
    air = ellipse(middle - 22, 26, 17, 32, 3.0) + ellipse(middle + 22, 26, 17, 32, 3.0)
    film = blend(film, 0.20, 0.8 * np.clip(air, 0, 1) * trunk)
    bowel = np.clip(smooth_noise(rng, 11) - 0.9, 0, 1) * soft(y - 62, 4.0) * trunk
    film = film - 0.14 * bowel
    film = film + 0.14 * rib_lines(xs, ys, tilts) * trunk
    film = film + 0.24 * pelvis(xs, ys)
    film = blend(film, 0.50, 0.5 * column(xs, ys, tilts, 12.5, PITCH + 1, 1.0))
    film = blend(film, 0.80, column(xs, ys, tilts, 11.5, PITCH - 1.9, 1.0))
    film = film + 0.15 * pedicles(xs, ys, tilts)
    film = blend(film, 0.95, 0.8 * marker("R", SIZE - 14, 3))
    return develop(film, rng, case.difficulty, max_degrees=5.0)


def column(xs: Field, ys: Field, tilts: Field, width: float, height: float, grow: float) -> Field:
    """All vertebral bodies, `grow` times as large at the bottom as a quarter more."""

    def paint(draw, place) -> None:
        for x, y, tilt in zip(xs, ys, tilts, strict=True):
            size = 0.85 + 0.30 * grow * np.clip(y / SIZE, 0, 1)
            draw.polygon(place(quad(x, y, tilt, width * size, height)), fill=255)

    return painted(paint)


def pedicles(xs: Field, ys: Field, tilts: Field) -> Field:
    """Two eyes and a nose on every vertebra: pedicles and spinous process."""

    def paint(draw, place) -> None:
        for x, y, tilt in zip(xs, ys, tilts, strict=True):
            for across, radius in ((-3.6, 1.2), (3.6, 1.2), (0, 0.8)):
                cx, cy = x + across * np.cos(tilt), y - across * np.sin(tilt)
                draw.ellipse(
                    [*place([(cx - radius, cy - radius)])[0], *place([(cx + radius, cy + radius)])[0]], fill=255
                )

    return painted(paint)


def rib_lines(xs: Field, ys: Field, tilts: Field) -> Field:
    """Ribs that leave the upper vertebrae and droop sideways."""

    def paint(draw, place) -> None:
        for x, y, tilt in zip(xs, ys, tilts, strict=True):
            if y > 62:
                continue
            for side in (-1, 1):
                t = np.linspace(0, 1, 7)
                across, down = side * (6 + 28 * t), -3 * np.sin(2.5 * t) + 14 * t**2
                points = zip(x + across, y + down - across * np.sin(tilt) * (1 - 0.5 * t), strict=True)
                draw.line(place(list(points)), fill=200, width=5)

    return painted(paint)


def pelvis(xs: Field, ys: Field) -> Field:
    """Iliac wings beside the lowest vertebrae."""
    foot = float(xs[np.argmin(np.abs(ys - 108))])
    wings = ellipse(foot - 27, 114, 20, 17, 1.5) + ellipse(foot + 27, 114, 20, 17, 1.5)
    return np.clip(wings, 0, 1)
