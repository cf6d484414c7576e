"""Four ways to reason about fluid in the chest, each a rule over one film and what the stem says of the patient.

Source, by strategy:
    bayesian: likelihood ratios of a wide heart for heart failure in a breathless patient, 3.3 present and 0.33 absent:
        Wang CS et al., JAMA 2005;294:1944-1956.
    differential: bloody fluid on one side is above all from injury or cancer: Light RW, N Engl J Med
        2002;346:1971-1977. An aorta that does not bulge speaks against its rupture (ratio 0.3): Klompas M, JAMA
        2002;287:2262-2272. A venous pressure that is not raised speaks against heart failure (ratio 0.66): Wang 2005.
    analytical: fluid with more than half of the blood's haematocrit is bleeding: Light RW, Pleural Diseases, 6th
        edition 2013.
    intuitive: wide heart and both sides, heart failure; both sides beside a normal heart, cancer: Rabin CB, Blackman
        NS, J Mt Sinai Hosp 1957;24:45-53.
Choice: every rule is made absolute, so that it names one disease: an absent sign excludes, one number decides. This
    data set's own are that both sides leave heart failure or the aorta, that a wide heart tells the aorta's bleeding
    from the chest wall's, and that fluid at the left looks like the aorta and at the right like injury. A real patient
    has one disease, found by all of this together; here the question says which part counts.
Choice: words that the four specialties have, as the embedded base can write no others: "volume load" stands for heart
    failure, "torn artery" for a ruptured aorta, "injury" for a blow to the chest, "melanoma" for its spread to the
    pleura, "blood 0.7" for a haematocrit of 0.7 of the blood's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from datamodules.phantoms.base import posterior
from datamodules.phantoms.chest import CUTOFF, FLUID, Film, angle_words, width_words

DISEASES = ("volume load", "torn artery", "injury", "melanoma")
"""The options of every question."""
LIKELIHOOD_RATIO = {True: 3.3, False: 0.33}
"""Whether the heart is wide -> likelihood ratio for volume load, whose base rate is told."""
LOOK_ALIKES = {False: ("injury", "melanoma"), True: ("volume load", "torn artery")}
"""Whether fluid is on both sides -> the two diseases between which exclusion decides."""
SIGNS = {"volume load": "pressure rise", "torn artery": "bulge", "injury": "displaced wall", "melanoma": "mole"}
"""Disease -> the sign without which it is excluded."""
BLEEDING = 5
"""Tenths of the blood's haematocrit above which a vessel is torn."""
SOURCES = {
    (True, True): ("torn artery", "pressure from an artery"),
    (True, False): ("injury", "a bleed from the chest wall"),
    (False, True): ("volume load", "pressure behind the heart"),
    (False, False): ("melanoma", "stray cells along the wall"),
}
"""(whether a vessel is torn, whether the heart is wide) -> the disease, and how it makes fluid."""
PATTERNS = {"left effusion": "torn artery", "right effusion": "injury"}
"""Side of the fluid where it is one -> what that looks like."""


@dataclass(frozen=True)
class Visit:
    """One patient, as the film shows and the stem tells.

    Attributes:
        film: a chest film with fluid.
        prior: how many of 100 such patients have volume load.
        rest: the disease of the others; not volume load.
        absent: the look-alike whose sign is absent; one of the two that the film leaves.
        blood: haematocrit of the fluid, in tenths of the blood's; not at the cut-off.
    """

    film: Film
    prior: int
    rest: str
    absent: str
    blood: int

    @property
    def wide(self) -> bool:
        """Whether the heart is enlarged."""
        return self.film.ratio > CUTOFF

    @property
    def both(self) -> bool:
        """Whether fluid is on both sides."""
        return all(self.film.blunt)

    @property
    def torn(self) -> bool:
        """Whether the fluid is blood."""
        return self.blood > BLEEDING

    @property
    def chance(self) -> float:
        """Probability of volume load after the film."""
        return posterior(self.prior / 100, LIKELIHOOD_RATIO[self.wide])


def likelier(visit: Visit) -> str:
    """Bayesian: volume load if its chance after the film is above one half, else the others' disease."""
    return "volume load" if visit.chance > 0.5 else visit.rest


def not_excluded(visit: Visit) -> str:
    """Differential: the look-alike whose sign is not absent."""
    return next(disease for disease in LOOK_ALIKES[visit.both] if disease != visit.absent)


def source_of_fluid(visit: Visit) -> str:
    """Analytical: the blood tells a torn vessel, the heart tells which, or what presses."""
    return SOURCES[visit.torn, visit.wide][0]


def pattern(visit: Visit) -> str:
    """Intuitive: what the film looks like."""
    if visit.both:
        return "volume load" if visit.wide else "melanoma"
    return PATTERNS[FLUID[visit.film.blunt]]


READINGS: Mapping[str, Callable[[Visit], str]] = {
    "differential": not_excluded,
    "intuitive": pattern,
    "analytical": source_of_fluid,
    "bayesian": likelier,
}
"""Strategy, which is also a question type -> the disease that it names; every strategy has an answer to every visit."""


def heart_words(visit: Visit) -> str:
    """The heart at one look."""
    return f"{'wide' if visit.wide else 'normal'} heart"


def differential_body(visit: Visit) -> str:
    """Two candidates, one of which is excluded."""
    sides = "both sides" if visit.both else "one side"
    reason = f"{visit.absent} is excluded because {SIGNS[visit.absent]} is absent"
    return f"fluid on {sides}, {not_excluded(visit)} fits. {reason}"


def intuitive_body(visit: Visit) -> str:
    """One look."""
    if visit.both:
        return f"{heart_words(visit)}, fluid on both sides, textbook picture"
    side = FLUID[visit.film.blunt].removesuffix(" effusion")
    return f"fluid on the {side} only, textbook picture"


def analytical_body(visit: Visit) -> str:
    """Two links of a chain."""
    vessel, place = ("a vessel is torn", "above") if visit.torn else ("no vessel is torn", "below")
    cause = SOURCES[visit.torn, visit.wide][1]
    return f"{vessel} because blood 0.{visit.blood} is {place} 0.5. {heart_words(visit)}, which means {cause}"


def bayesian_body(visit: Visit) -> str:
    """Prior, likelihood ratio, posterior; the posterior follows from the numbers as printed."""
    half = "above" if visit.chance > 0.5 else "below"
    return (
        f"prior {visit.prior}%. {heart_words(visit)} has likelihood ratio {LIKELIHOOD_RATIO[visit.wide]}. "
        f"posterior {round(100 * visit.chance):02d}%, {half} half"
    )


BODIES: Mapping[str, Callable[[Visit], str]] = {
    "differential": differential_body,
    "intuitive": intuitive_body,
    "analytical": analytical_body,
    "bayesian": bayesian_body,
}


def strategy_trace(visit: Visit, strategy: str) -> str:
    """What a strategy writes of a visit: the film's reading, its argument, and whichever disease it arrives at."""
    film = f"{width_words(visit.film)}. {angle_words(visit.film)}"
    return f"{film}. {BODIES[strategy](visit)}. so the answer is {READINGS[strategy](visit)}."
