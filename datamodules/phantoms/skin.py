"""Dermatoscopic skin lesions: the verdict of the ABCD rule, and how many axes are asymmetric.

    TDS = 1.3 A + 0.1 B + 0.5 C + 0.5 D

A: asymmetric axes, 0 to 2. B: eighths of the border that end abruptly, 0 to 8. C: colours present out of white, red,
light brown, dark brown, blue-gray and black, 1 to 6. D: structures present out of network, structureless area,
dots, globules and streaks, 1 to 5. Below 4.75 benign, 4.75 to 5.45 suspicious, above 5.45 highly suspicious.

Source: Stolz W et al., Eur J Dermatol 1994;4:521-527; Nachbar F et al., J Am Acad Dermatol 1994;30:551-559.
Choice: whole lesions only, all four quantities drawn; `lesion.py` says how each is shown.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from typing import ClassVar

import numpy as np
from PIL import Image
from typing_extensions import override

from datamodules.phantoms.base import PhantomDataModule, Question, Reading, bayesian_body, draw_class
from datamodules.phantoms.lesion import COLOURS, STRUCTURES, Lesion, draw_lesion
from datamodules.phantoms.truth import IS, Finding, Values

VERDICTS = {"benign": "below 4.75", "suspicious": "within 4.75 to 5.45", "melanoma": "above 5.45"}
"""Verdict -> its range of the score; melanoma stands for highly suspicious of it."""
AXES = ("symmetric", "one axis", "two axes")
"""Asymmetry score -> option text."""
COUNTS = {"asymmetry": (0, 2), "border": (0, 8), "colours": (1, 6), "structures": (1, 5)}
"""Part of the score -> its least and its greatest count."""
SHARES = {"symmetric": (0.6, 0.3, 0.1), "one axis": (0.3, 0.4, 0.3), "two axes": (0.1, 0.3, 0.6)}
"""Asymmetry -> shares of the verdicts: as in life, asymmetric lesions score higher; each verdict has a third."""


def tenths(asymmetry: int, border: int, colours: int, structures: int) -> int:
    """Ten times the total dermatoscopy score, an integer."""
    return 13 * asymmetry + border + 5 * colours + 5 * structures


def score_tenths(case: Lesion) -> int:
    """Ten times the score of a lesion."""
    return tenths(case.asymmetry, case.border, len(case.colours), len(case.structures))


def verdict(score: int) -> str:
    """Class of a score in tenths."""
    return "benign" if score < 47.5 else "suspicious" if score <= 54.5 else "melanoma"


@cache
def combinations(asymmetry: int, name: str, gap: int) -> tuple[tuple[int, int, int], ...]:
    """All (B, C, D) that give a verdict, `gap` tenths away from its cut-offs where the verdict is open-ended."""
    return tuple(
        (b, c, d)
        for b in range(9)
        for c in range(1, 7)
        for d in range(1, 6)
        if verdict(score := tenths(asymmetry, b, c, d)) == name
        and not 47 - gap < score < 48
        and not 54 < score < 55 + gap
    )


class SkinLesions(PhantomDataModule):
    """Dermatoscopic pictures with two questions: verdict and asymmetry."""

    PREFIX: ClassVar = "skin"
    MODALITY: ClassVar = "dermatoscopy"
    GENRE: ClassVar = "skin photo"
    PREVALENCE: ClassVar = {
        "verdict": dict.fromkeys(VERDICTS, 1 / 3),
        "asymmetry": dict.fromkeys(AXES, 1 / 3),
    }
    FINDINGS: ClassVar = {
        name: Finding({rf"\b{name} {IS}(\d+)(?!\.?\d)": ""}, low=low, high=high) for name, (low, high) in COUNTS.items()
    }
    NEEDED: ClassVar = {"verdict": tuple(COUNTS), "asymmetry": ("asymmetry",)}

    @classmethod
    @override
    def sample(cls, rng: random.Random, difficulty: float) -> Lesion:
        axes = draw_class(rng, cls.PREVALENCE["asymmetry"])
        name = draw_class(rng, dict(zip(VERDICTS, SHARES[axes], strict=True)))
        b, c, d = rng.choice(combinations(AXES.index(axes), name, round(5 * (1 - difficulty))))
        outermost, *inner = COLOURS
        return Lesion(
            asymmetry=AXES.index(axes),
            border=b,
            colours=(outermost, *rng.sample(inner, c - 1)),
            structures=tuple(rng.sample(STRUCTURES, d)),
            radius=rng.uniform(34, 38),
            axis=rng.uniform(-0.35, 0.35) - np.pi / 2,
            difficulty=difficulty,
            seed=rng.getrandbits(32),
        )

    @classmethod
    @override
    def readings(cls, case: Lesion) -> list[Reading]:
        found = cls.found(case)
        return [
            Reading(
                f"read the {name}.",
                score_words(case),
                f"{name} {found[name]}",
                tuple(f"{name} {other}" for other in range(low, high + 1) if other != found[name]),
            )
            for name, (low, high) in COUNTS.items()
        ]

    @classmethod
    @override
    def questions(cls, case: Lesion, rng: random.Random) -> list[Question]:
        return [verdict_question(case, rng), asymmetry(case, rng)]

    @classmethod
    @override
    def found(cls, case: Lesion) -> Values:
        counts = (case.asymmetry, case.border, len(case.colours), len(case.structures))
        return dict(zip(COUNTS, counts, strict=True))

    @classmethod
    @override
    def supposed(cls, case: Lesion, stated: Values) -> list[Lesion]:
        a, b, c, d = (int({**cls.found(case), **stated}[name]) for name in COUNTS)
        return [replace(case, asymmetry=a, border=b, colours=tuple(COLOURS)[:c], structures=STRUCTURES[:d])]

    @staticmethod
    @override
    def draw(case: Lesion) -> Image.Image:
        return draw_lesion(case)


def score_words(case: Lesion) -> str:
    """The reading of both questions."""
    colours, structures = len(case.colours), len(case.structures)
    return f"asymmetry {case.asymmetry}, border {case.border}, colours {colours}, structures {structures}"


def verdict_question(case: Lesion, rng: random.Random) -> Question:
    """The rule's verdict; the rejected candidate is the neighbour in score."""
    total = score_tenths(case)
    answer, score = verdict(total), f"{total / 10:.1f}"
    names = list(VERDICTS)
    other = "suspicious" if answer != "suspicious" else names[0] if total < 51 else names[2]
    parts = (13 * case.asymmetry, case.border, 5 * len(case.colours), 5 * len(case.structures))
    terms = " plus ".join(f"{part / 10:.1f}" for part in parts)
    look = {
        "benign": ("calm even spot", "harmless looking mole"),
        "suspicious": ("restless spot, keep an eye on it", "uneasy looking mole"),
        "melanoma": ("chaotic spot, the ugly duckling", "alarming mole"),
    }[answer]
    growth = {
        "benign": "pigment cells stay in nests",
        "suspicious": "pigment cells begin to stray",
        "melanoma": "pigment cells grow without order",
    }[answer]
    clear = answer != "suspicious" and min(abs(total - 47.5), abs(total - 54.5)) > 6
    bodies = {
        "differential": rng.choice(
            (
                f"score {score}. {answer} fits. {other} is unlikely because it lies {VERDICTS[other]}",
                f"{answer} versus {other}: score {score} supports {answer}. {other} is excluded because it lies "
                f"{VERDICTS[other]}",
            )
        ),
        "intuitive": rng.choice(look),
        "analytical": rng.choice(
            (
                f"{terms} is {score} because {growth}, which means {VERDICTS[answer]}",
                f"because {growth}, the parts add up: {terms} is {score}, which means {VERDICTS[answer]}",
            )
        ),
        "bayesian": bayesian_body(rng, SkinLesions.PREVALENCE["verdict"][answer], clear, f"score {VERDICTS[answer]}"),
    }
    return Question("verdict", "What does the ABCD rule say of this skin lesion?", answer, score_words(case), bodies)


def asymmetry(case: Lesion, rng: random.Random) -> Question:
    """How many of the two axes divide the lesion into unequal halves."""
    answer = AXES[case.asymmetry]
    other = rng.choice([name for name in AXES if name != answer])
    seen = dict(zip(AXES, ("both folds match", "one fold matches", "no fold matches"), strict=True))
    cause = ("growth is even all round", "growth is faster at one end", "growth runs wild in patches")[case.asymmetry]
    look = (("round and regular",), ("pear shaped",), ("lopsided all over",))[case.asymmetry]
    bodies = {
        "differential": rng.choice(
            (
                f"{answer} fits, {seen[answer]}. {other} is unlikely because then {seen[other]}",
                f"{answer} versus {other}: {seen[answer]}. {other} is excluded because then {seen[other]}",
            )
        ),
        "intuitive": rng.choice(look),
        "analytical": rng.choice(
            (
                f"because {cause}, {seen[answer]}, which means score {case.asymmetry}",
                f"{seen[answer]} because {cause}, therefore the score is {case.asymmetry}",
            )
        ),
        "bayesian": bayesian_body(
            rng, SkinLesions.PREVALENCE["asymmetry"][answer], case.asymmetry != 1, f"asymmetry {case.asymmetry}"
        ),
    }
    return Question("asymmetry", "Across which axes is this skin lesion uneven?", answer, score_words(case), bodies)
