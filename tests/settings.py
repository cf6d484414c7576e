"""Every setting acts: a register of tests by the field of a `Config` that they would fail without.

ACTS = Register(SFTLoRA.Config)

@ACTS.acts("learning_rate")
def test_...

def test_every_setting_has_a_test_that_needs_it():
    ACTS.check()
"""

import dataclasses
from collections.abc import Callable


class Register:
    """The tests of one `Config`."""

    def __init__(self, config: type, *elsewhere: "Register") -> None:
        """Begin empty.

        Args:
            config: the dataclass.
            elsewhere: registers of the dataclasses that it inherits from.
        """
        self.config, self.elsewhere = config, elsewhere
        self.tests: dict[str, Callable] = {}

    def acts(self, *fields: str) -> Callable[[Callable], Callable]:
        """Say that a test fails when any of these fields is ignored."""
        strange = set(fields) - {field.name for field in dataclasses.fields(self.config)}
        if strange:
            raise LookupError(f"{self.config.__qualname__} has no {sorted(strange)}")

        def keep(test: Callable) -> Callable:
            self.tests |= dict.fromkeys(fields, test)
            return test

        return keep

    def missing(self) -> list[str]:
        """Fields that no test needs."""
        known = set(self.tests).union(*(register.tests for register in self.elsewhere))
        return [field.name for field in dataclasses.fields(self.config) if field.name not in known]

    def check(self) -> None:
        """Fail with the names of settings that could be ignored without any test noticing."""
        assert self.missing() == [], f"{self.config.__qualname__}: no test fails when these are ignored"
