"""Axial head CT slices: surgery for an acute extra-axial haematoma, and which kind it is.

Source: Bullock MR et al., Guidelines for the surgical management of traumatic brain injury, Neurosurgery 2006;58(3
    Suppl). Subdural (S16-24): evacuate when thicker than 10 mm or when the midline shift exceeds 5 mm, whatever the
    coma score. Epidural (S7-15): may be watched when thinner than 15 mm with less than 5 mm shift and under 30 ml.
Choice: an epidural is evacuated above 15 mm or above 5 mm shift; its volume, which one slice cannot show, and the coma
    score are left out. A crescent is read as subdural and a lens as epidural. Slices show the
    patient's left on the viewer's right.
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

MM_PER_PIXEL = 1.6
"""Every slice has this scale; the bar in the corner is 50 mm."""
SHIFT_LIMIT = 5
"""Millimetres of midline shift above which a haematoma is evacuated."""
SHAPES = {"crescent": "subdural", "lens": "epidural", "absent": "no haematoma"}
"""Shape of the blood along the skull -> diagnosis."""
THICKNESS_LIMIT = {"crescent": 10, "lens": 15, "absent": 10}
"""Millimetres above which it is evacuated."""
INNER = (40.0, 49.0)
"""Half axes of the inner skull, pixels."""


@dataclass(frozen=True)
class Slice:
    """One patient's slice.

    Attributes:
        shape: a key of `SHAPES`.
        thickness: greatest thickness of the blood, whole millimetres.
        shift: displacement of the midline at its middle, whole millimetres, away from the blood.
        side: of the blood, +1 for the viewer's right.
        angle: where the blood lies, in radians from the side towards the back.
        difficulty: as in the configuration.
        seed: of the drawing's noise.
    """

    shape: str
    thickness: int
    shift: int
    side: int
    angle: float
    difficulty: float
    seed: int

    @property
    def thick(self) -> bool:
        """Whether the thickness alone asks for evacuation."""
        return self.thickness > THICKNESS_LIMIT[self.shape]

    @property
    def shifted(self) -> bool:
        """Whether the shift alone asks for evacuation."""
        return self.shift > SHIFT_LIMIT


class HeadCTs(PhantomDataModule):
    """Head CT slices after an injury with two questions: surgery and diagnosis."""

    PREFIX: ClassVar = "head"
    MODALITY: ClassVar = "CT"
    GENRE: ClassVar = "head scan"
    PREVALENCE: ClassVar = {
        "surgery": {"evacuate": 0.5, "observe": 0.5},
        "diagnosis": {"subdural": 0.36, "epidural": 0.36, "no haematoma": 0.28},
    }
    # Choice: 2 mm, a pixel and a quarter.
    FINDINGS: ClassVar = {
        "shape": Finding({r"\b(crescent|lens|absent) rim\b": ""}),
        "rim": Finding({rf"\brim {IS}(\d+)(?!\.?\d)(?: ?mm\b)?": ""}, within=2, low=0, high=40),
        "shift": Finding({rf"\bshift {IS}(\d+)(?!\.?\d)(?: ?mm\b)?": ""}, within=2, low=0, high=30),
    }
    NEEDED: ClassVar = {"surgery": ("shape", "rim", "shift"), "diagnosis": ("shape",)}

    @classmethod
    @override
    def sample(cls, rng: random.Random, difficulty: float) -> Slice:
        diagnosis = draw_class(rng, cls.PREVALENCE["diagnosis"])
        shape = next(shape for shape, name in SHAPES.items() if name == diagnosis)
        # Half of all patients are evacuated, and those without blood never are.
        operate = shape != "absent" and rng.random() < 0.5 / 0.72
        thick, shifted = rng.choice(((True, False), (False, True), (True, True))) if operate else (False, False)
        limit, gap = THICKNESS_LIMIT[shape], round(3 * (1 - difficulty))
        thickness = rng.randint(limit + 1 + gap, limit + 12) if thick else rng.randint(limit - 6, limit - gap)
        return Slice(
            shape=shape,
            thickness=0 if shape == "absent" else thickness,
            shift=rng.randint(SHIFT_LIMIT + 1 + gap, 14) if shifted else rng.randint(0, SHIFT_LIMIT - gap),
            side=rng.choice((-1, 1)),
            angle=rng.uniform(-0.5, 0.4),
            difficulty=difficulty,
            seed=rng.getrandbits(32),
        )

    @classmethod
    @override
    def readings(cls, case: Slice) -> list[Reading]:
        rims = tuple(f"rim {other:02d} mm" for other in far_from(case.thickness, range(0, 27), 6))
        shifts = tuple(f"shift {other:02d} mm" for other in far_from(case.shift, range(0, 15), 4))
        shapes = tuple(shape for shape in SHAPES if shape != case.shape)
        return [
            Reading("read the bright rim.", blood_words(case), f"rim {case.thickness:02d} mm", rims),
            Reading("read the midline.", blood_words(case), f"shift {case.shift:02d} mm", shifts),
            Reading("read the shape of the bright rim.", blood_words(case), case.shape, shapes),
        ]

    @classmethod
    @override
    def questions(cls, case: Slice, rng: random.Random) -> list[Question]:
        return [surgery(case, rng), diagnosis(case, rng)]

    @classmethod
    @override
    def found(cls, case: Slice) -> Values:
        return {"shape": case.shape, "rim": case.thickness, "shift": case.shift}

    @classmethod
    @override
    def supposed(cls, case: Slice, stated: Values) -> list[Slice]:
        said = {**cls.found(case), **stated}
        bare = said["shape"] == "absent"
        if "rim" in stated and bare != (said["rim"] == 0):
            return []
        rim = 0 if bare else int(said["rim"]) or THICKNESS_LIMIT[said["shape"]]
        return [replace(case, shape=said["shape"], thickness=rim, shift=int(said["shift"]))]

    @staticmethod
    @override
    def draw(case: Slice) -> Image.Image:
        return draw_slice(case)


def blood_words(case: Slice) -> str:
    """The reading of both questions."""
    return f"{case.shape} rim {case.thickness:02d} mm, shift {case.shift:02d} mm"


def surgery(case: Slice, rng: random.Random) -> Question:
    """Evacuate when too thick or too far shifted; either alone suffices."""
    limit = THICKNESS_LIMIT[case.shape]
    answer, other = ("evacuate", "observe") if case.thick or case.shifted else ("observe", "evacuate")
    excess = [f"rim over {limit}"] * case.thick + [f"shift over {SHIFT_LIMIT:02d}"] * case.shifted
    finding = " and ".join(excess) or f"rim within {limit}, shift within {SHIFT_LIMIT:02d}"
    if answer == "evacuate":
        look = ("brain under pressure, surgeon now", "tight brain, emergency picture")
        reject = f"it needs rim within {limit} and shift within {SHIFT_LIMIT:02d}"
        chain = "blood fills the closed skull, which means pressure rises and the brain is displaced"
    else:
        look = ("roomy brain, nothing pressing", "quiet brain, calm picture")
        reject = f"it needs rim over {limit} or shift over {SHIFT_LIMIT:02d}"
        chain = "the skull still has room, which means pressure stays low and the brain in place"
    margins = [abs(case.shift - SHIFT_LIMIT) >= 3] if case.shifted else []
    margins += [case.thickness - limit >= 4] if case.thick else []
    clear = any(margins) if excess else limit - case.thickness >= 4 and SHIFT_LIMIT - case.shift >= 3
    bodies = {
        "differential": rng.choice(
            (
                f"{answer} fits, {finding}. {other} is unlikely because {reject}",
                f"{answer} versus {other}: {finding} supports {answer}. {other} is excluded because {reject}",
            )
        ),
        "intuitive": rng.choice(look),
        "analytical": rng.choice((f"{finding} because {chain}", f"because {chain}, we see {finding}")),
        "bayesian": bayesian_body(rng, HeadCTs.PREVALENCE["surgery"][answer], clear, finding),
    }
    return Question(
        "surgery", "Bar is 50 mm. What should be done after this injury?", answer, blood_words(case), bodies
    )


def diagnosis(case: Slice, rng: random.Random) -> Question:
    """A crescent is subdural, a lens epidural."""
    answer = SHAPES[case.shape]
    other = rng.choice([name for name in SHAPES.values() if name != answer])
    needs = {"subdural": "a crescent", "epidural": "a lens", "no haematoma": "a clean inner skull"}
    look = {
        "crescent": ("sickle along the brain", "long thin sickle"),
        "lens": ("bulging biconvex pool", "short fat pool"),
        "absent": ("clean skull edge", "nothing bright inside"),
    }[case.shape]
    cause = {
        "crescent": ("torn bridging veins bleed slowly", "blood spreads past the sutures"),
        "lens": ("a torn artery strips the dura", "blood stops at the sutures"),
        "absent": ("no vessel is torn", "blood stays inside"),
    }[case.shape]
    bodies = {
        "differential": rng.choice(
            (
                f"{answer} fits, we see {needs[answer]}. {other} is unlikely because it shows {needs[other]}",
                f"{answer} versus {other}: {needs[answer]}. {other} is excluded because it shows {needs[other]}",
            )
        ),
        "intuitive": rng.choice(look),
        "analytical": rng.choice(
            (
                f"because {cause[0]}, {cause[1]}, which means {needs[answer]}",
                f"we see {needs[answer]} because {cause[0]}, therefore {cause[1]}",
            )
        ),
        "bayesian": bayesian_body(
            rng, HeadCTs.PREVALENCE["diagnosis"][answer], case.thickness == 0 or case.thickness > 7, f"{case.shape} rim"
        ),
    }
    return Question("diagnosis", "Which bleeding does this head scan show?", answer, blood_words(case), bodies)


def draw_slice(case: Slice) -> Image.Image:
    """Compose skull, brain, ventricles, midline and blood as brightness, then develop."""
    rng = np.random.default_rng(case.seed)
    x, y = grid()
    cx, cy = SIZE / 2, SIZE / 2
    inner = ellipse(cx, cy, *INNER, 0.5)
    scan = 0.02 + 0.28 * ellipse(cx, cy, INNER[0] + 7, INNER[1] + 6, 0.8)  # scalp
    scan = blend(scan, 0.97, ellipse(cx, cy, INNER[0] + 4, INNER[1] + 4, 0.5))  # bone
    brain = 0.42 + 0.020 * smooth_noise(rng, 14)
    sulci = np.clip(np.abs(smooth_noise(rng, 18)) * -4 + 0.9, 0, 1) * (1 - ellipse(cx, cy, 33, 42, 3.0))
    brain = brain - 0.13 * sulci
    brain = brain + 0.05 * (ellipse(cx - 15, cy, 5, 9, 2.0) + ellipse(cx + 15, cy, 5, 9, 2.0))  # deep grey matter
    # The midline bows away from the blood: fixed at both ends, `shift` in the middle.
    bow = -case.side * case.shift / MM_PER_PIXEL * np.clip(1 - ((y - cy) / INNER[1]) ** 2, 0, 1)
    brain = blend(brain, 0.62, 0.8 * soft(0.7 - np.abs(x - cx - bow), 0.3) * soft(np.abs(y - cy) - 21, 1.0))
    brain = blend(brain, 0.14, ventricles(case, rng, bow))
    scan = blend(scan, brain, inner)
    scan = blend(scan, 0.82 + 0.02 * smooth_noise(rng, 20), blood_mask(case) * inner)
    bar = painted(lambda draw, place: draw.line(place([(74, 107), (74 + 50 / MM_PER_PIXEL, 107)]), fill=255, width=4))
    scan = blend(scan, 0.95, np.maximum(bar, 0.8 * marker("R", 3, 2)))
    return develop(scan, rng, case.difficulty, max_degrees=10.0)


def ventricles(case: Slice, rng: np.random.Generator, bow: Field) -> Field:
    """Butterfly of frontal and occipital horns around the displaced midline; the side of the blood is squeezed."""
    x, y = grid()
    size = rng.uniform(0.85, 1.15)
    squeeze = 1 - 0.5 * min(1.0, case.shift / 12)
    across = (x - SIZE / 2 - bow) / size
    down = (y - SIZE / 2) / size
    total = soft(1.1 - np.abs(across), 0.4) * soft(7 - np.abs(down - 1), 1.0)  # third ventricle
    for side in (-1, 1):
        width = squeeze if side == case.side else 1.0
        front = width * 3.2 - np.abs(side * across - 4.5 - 0.32 * np.clip(-down - 6, 0, 20))
        back = width * 3.4 - np.abs(side * across - 7.0 - 0.42 * np.clip(down - 8, 0, 20))
        total = (
            total
            + soft(front, 0.6) * soft(7 - np.abs(down + 12), 1.2)
            + soft(back, 0.6) * soft(7 - np.abs(down - 17), 1.2)
        )
    return np.clip(total, 0, 1)


def blood_mask(case: Slice) -> Field:
    """Blood between the inner skull and a depth that depends on the direction.

    Crescent: full thickness over a wide arc, depth = thickness * (1 - (phi / 1.35)^4). Lens: a short arc that bulges
    inwards, depth = thickness * (1 - (phi / 0.62)^2)^0.6. phi is the angle from the middle of the blood.
    """
    x, y = grid()
    if case.thickness == 0:
        return np.zeros_like(x + y)
    across, down = case.side * (x - SIZE / 2) / INNER[0], (y - SIZE / 2) / INNER[1]
    radius, direction = np.hypot(across, down), np.arctan2(down, across) - case.angle
    arc, inner, outer = (1.35, 4, 1.0) if case.shape == "crescent" else (0.62, 2, 0.6)
    reach = np.clip(1 - (np.abs(direction) / arc) ** inner, 0, 1) ** outer * case.thickness / MM_PER_PIXEL
    local = np.hypot(INNER[0] * np.cos(direction + case.angle), INNER[1] * np.sin(direction + case.angle))
    return soft(reach - (1 - radius) * local, 0.5) * (reach > 0.3)
