"""Registers of reinforcement learning: by setting, the test that fails when it is ignored.

@RL.acts("temperature")
@acts(Clipped, "clip_low", "clip_high")
def test_...

What is claimed here is carried out by test_mutations.py, which ignores each setting and runs its test.
"""

from collections.abc import Callable

from lightning_modules.rl_gba import GBA
from tests.lightning_modules.test_stage import COMMON
from tests.settings import Register

RL = Register(GBA.Config, COMMON)
PARTS: dict[type, Register] = {}
"""By class of a part: an advantage, a loss, a penalty, a transfer, an engine, a reward term."""


def acts(part: type, *fields: str) -> Callable[[Callable], Callable]:
    """Say that a test fails when any of these fields of a part is ignored; of a part without settings, that it acts."""
    return PARTS.setdefault(part, Register(part.Config)).acts(*fields)
