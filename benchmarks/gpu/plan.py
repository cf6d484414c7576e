"""What is measured in which order, and how many seconds each part may take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks.gpu import decoding, made, merging, nf4, stock, suite, training
from benchmarks.gpu.lines import Lines, SkipError, release
from benchmarks.gpu.sizes import SIZES, Size
from lightning_modules.policy import Policy

SECONDS = 360
BUDGETS = {
    "load": 40,
    "sft": 30,
    "sft checkpointed": 30,
    "decode": 20,
    "gba": 75,
    "stock": 100,
    "nf4 sft checkpointed": 40,
    "merge": 40,
    "tests": 60,
}
"""Bounds, far above what is expected: they keep one part from taking the time of all others."""


@dataclass
class Measured:
    """One size on its way through the parts.

    Attributes:
        name: of the size.
        size: what it is.
        device: `cuda` or `cpu`.
        policy: once it is loaded.
        rl: the GBA step, once it was taken.
    """

    name: str
    size: Size
    device: str
    policy: Policy | None = None
    rl: training.RLStep | None = field(default=None, repr=False)

    def load(self) -> dict[str, Any]:
        """Make the model."""
        self.policy = made.policy_of(self.size, self.device)
        return {"parameters": sum(parameter.numel() for parameter in self.policy.family.model.parameters())}

    def gba(self) -> dict[str, Any]:
        """A step of GBA, remembered for the stock loop."""
        found, self.rl = training.gba(self.loaded, self.size, self.device)
        return found

    def stock(self) -> dict[str, Any]:
        """The same step by stock parts."""
        if self.rl is None:
            raise SkipError("there is no GBA step to repeat")
        return stock.step(self.loaded, self.size, self.device, self.rl)

    @property
    def loaded(self) -> Policy:
        """The model.

        Raises:
            SkipError: it could not be made.
        """
        if self.policy is None:
            raise SkipError("the model was not loaded")
        return self.policy

    def on_policy(self, run: Callable[..., Mapping[str, Any]], **how: Any) -> Mapping[str, Any]:
        """A part that is a function of the policy, the size and the device."""
        return run(self.loaded, self.size, self.device, **how)


def measure_size(lines: Lines, of: Measured) -> None:
    """All that is measured of one size; its model is given back at the end."""
    parts: list[tuple[str, Callable[[], Mapping[str, Any]]]] = [
        ("load", of.load),
        ("sft", partial(of.on_policy, training.sft, checkpoint=False)),
        ("sft checkpointed", partial(of.on_policy, training.sft, checkpoint=True)),
        *(("decode", partial(of.on_policy, decoding.decode, rows=rows)) for rows in of.size.decode_rows),
        ("gba", of.gba),
        ("stock", of.stock),
        ("nf4 sft checkpointed", partial(of.on_policy, nf4.step)),  # the last: it leaves no bf16 weights
    ]
    for name, work in parts:
        lines.measure(name, of.name, BUDGETS[name], work)
    of.policy = of.rl = None
    release(of.device)


def measure_merges(lines: Lines, name: str, device: str) -> None:
    """The merge of one size's experts by each method."""
    for method in merging.METHODS:
        work = partial(merging.beside_the_processor, SIZES[name], device, method)
        lines.measure("merge", name, BUDGETS["merge"], work)


def gpu_tests(lines: Lines, device: str) -> dict[str, Any]:
    """The tests that need a card, in the time that is left for them.

    Raises:
        SkipError: there is no card.
    """
    if device != "cuda":
        raise SkipError("these tests need a card")
    return suite.gpu_tests(min(BUDGETS["tests"], lines.left))


def measure_all(lines: Lines, sizes: Sequence[str], device: str, *, tests: bool) -> None:
    """The largest size, what is measured once, then the other sizes.

    Args:
        lines: takes the lines.
        sizes: keys of `SIZES`, in any order.
        device: `cuda` or `cpu`.
        tests: whether the tests that need a card are run.
    """
    largest, *others = [name for name in SIZES if name in sizes]
    measure_size(lines, Measured(largest, SIZES[largest], device))
    measure_merges(lines, largest, device)
    if tests:
        lines.measure("tests", "", BUDGETS["tests"], partial(gpu_tests, lines, device))
    for name in others:
        measure_size(lines, Measured(name, SIZES[name], device))
