"""Short worked reasoning of four kinds, written from a finding and the label it stands for."""

from __future__ import annotations

from dataclasses import dataclass

from datamodules.base import uniform_hash


@dataclass(frozen=True)
class Clue:
    """What an option looks like, why, and what speaks against its nearest rival.

    Attributes:
        sign: the finding, lower case, three to six words.
        cause: why the sign means this option.
        rival: the option it is most easily taken for.
        against: the reason to reject the rival.
        seen: elicited P(sign | this option), in (0, 1).
        elsewhere: elicited P(sign | any other option), in (0, 1).
    """

    sign: str
    cause: str
    rival: str
    against: str
    seen: float = 0.9
    elsewhere: float = 0.1


def posterior(prior: float, seen: float, elsewhere: float) -> float:
    """Bayes' rule for one finding.

        P(option | sign) = prior * seen / (prior * seen + (1 - prior) * elsewhere)

    Args:
        prior: P(option), in (0, 1).
        seen: P(sign | option).
        elsewhere: P(sign | not option).
    """
    return prior * seen / (prior * seen + (1 - prior) * elsewhere)


def worked(option: str, clue: Clue, prior: float, key: str) -> dict[str, str]:
    """Four chains of thought about one question; each opens with the finding and ends in the option's text.

    Args:
        option: the conclusion, exactly as the options spell it.
        clue: the finding and its meaning.
        prior: share of the option among the questions of its kind.
        key: picks between two wordings; the question's id.

    Returns:
        Guideline name -> chain of thought.

    Choice: likelihoods are elicited, not measured, and stated to the reader as what they are in each data set; the
        posterior is computed from them.
    """
    p, seen, elsewhere = (f"{100 * x:.0f}%" for x in (prior, clue.seen, clue.elsewhere))
    after = f"{100 * posterior(prior, clue.seen, clue.elsewhere):.0f}%"
    sign, rival = clue.sign, clue.rival
    pairs = {
        "differential": (
            f"{sign}: {option} or {rival}? {rival} is unlikely because {clue.against}. So {option}.",
            f"{sign}. Consider {rival}, but {clue.against}, so it is rejected. That leaves {option}.",
        ),
        "intuitive": (f"{sign}, the typical look of {option}.", f"{sign}, at a glance this is {option}."),
        "analytical": (
            f"{sign} because {clue.cause}. Therefore it is {option}.",
            f"{sign}. This happens because {clue.cause}, which means {option}.",
        ),
        "bayesian": (
            f"{sign}. Prior {p}, likelihood {seen} against {elsewhere}, posterior {after}. So {option}.",
            f"{sign}. From prior {p} with likelihood {seen} over {elsewhere} to posterior {after}: {option}.",
        ),
    }
    return {name: wordings[uniform_hash("wording", name, key) < 0.5] for name, wordings in pairs.items()}
