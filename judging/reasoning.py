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
        follows: whether the steps fit the findings as stated and lead to the conclusion; None where not all is read.
        agrees: whether the reasoning concludes the option that is answered; None where nobody says.
    """

    right: bool
    named: tuple[bool, ...] = ()
    needed: tuple[bool, ...] = ()
    follows: bool | None = None
    agrees: bool | None = None

    @property
    def findings(self) -> bool | None:
        """Whether all that the rule asks for is stated, and rightly; None where nobody says."""
        return all(self.needed) if self.needed else None

    @property
    def right_reason(self) -> bool | None:
        """Whether the answer is right, from right findings, by a reasoning that says so; None where it is unknown.

        Whether the steps follow is a column of its own: it depends on words that not every model uses.
        """
        if not self.right:
            return False
        parts = (self.findings, self.agrees)
        return None if None in parts and False not in parts else all(parts)

    @property
    def sound(self) -> bool | None:
        """Right for the right reason, by steps that all follow; None where the reason is unknown."""
        return self.right_reason and self.follows is True
