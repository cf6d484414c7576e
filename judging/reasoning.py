"""What is read of one answer's reasoning, by rule or by a judge: what a table of reasons is made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reasoning:
    """One answer with its reasons.

    Attributes:
        right: as it counts in the accuracy.
        named: for each statement of a finding, whether it is true.
        needed: for each finding that the question's rule asks for, whether it is stated, and never wrongly.
        follows: whether the steps fit the findings as stated and lead to the conclusion; None where not all is read, or
            nobody says.
        agrees: whether the reasoning concludes the option that is answered; None where nobody says.
        unread: whether a step is in other words than the reader by rule knows; None where a judge reads.
    """

    right: bool
    named: tuple[bool, ...] = ()
    needed: tuple[bool, ...] = ()
    follows: bool | None = None
    agrees: bool | None = None
    unread: bool | None = None

    @property
    def findings(self) -> bool | None:
        """Whether all that the rule asks for is stated, and rightly; None where nobody says."""
        return all(self.needed) if self.needed else None

    @property
    def right_reason(self) -> bool | None:
        """Whether the answer is right, from right findings, by a reasoning that says so; None where it is unknown.

        Whether the steps follow is a column of its own: it depends on words that not every model uses.
        """
        return together(self.right, self.findings, self.agrees)

    @property
    def steps(self) -> bool | None:
        """Whether the steps follow, those that no reader knows counted as not; None where nobody says."""
        return False if self.unread else self.follows

    @property
    def sound(self) -> bool | None:
        """Right for the right reason, by steps that all follow; None where that is unknown."""
        return together(self.right_reason, self.steps)


def together(*parts: bool | None) -> bool | None:
    """Whether all hold: False where one does not, None where it hangs on what is unknown."""
    return None if None in parts and False not in parts else all(parts)
