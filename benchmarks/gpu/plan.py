"""What is measured in which order, and how many seconds each part may take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks.gpu import decoding, estimate, made, merging, nf4, stock, suite, training
from benchmarks.gpu.lines import Lines, SkipError, peak_gib, release
from benchmarks.gpu.sizes import SIZES, Size
from lightning_modules.policy import Policy

SECONDS = 360
BUDGETS = {
    "load": 40,
    "sft": 30,
    "sft checkpointed": 30,
    "decode": 20,
    "gba": 75,
    "stock": 140,
    "estimate": 30,
    "nf4 sft checkpointed": 50,
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
        held: what each step held, for the estimate.
    """

    name: str
    size: Size
    device: str
    policy: Policy | None = None
    rl: training.RLStep | None = field(default=None, repr=False)
    held: dict[str, estimate.Shapes] = field(default_factory=dict)

    def load(self) -> dict[str, Any]:
        """Make the model."""
        self.policy = made.policy_of(self.size, self.device)
        return {"parameters": sum(parameter.numel() for parameter in self.policy.family.model.parameters())}

    def sft(self, *, checkpoint: bool) -> dict[str, Any]:
        """Steps of SFT."""
        found = training.sft(self.loaded, self.size, self.device, checkpoint=checkpoint)
        name = "sft checkpointed" if checkpoint else "sft"
        self.held[name] = estimate.Shapes(peak_gib(self.device), checkpoint, found["micro_batch"])
        return found

    def decode(self, rows: int) -> dict[str, Any]:
        """Tokens per second."""
        return decoding.decode(self.loaded, self.size, self.device, rows)

    def gba(self) -> dict[str, Any]:
        """A step of GBA, remembered for the stock loop."""
        found, self.rl = training.gba(self.loaded, self.size, self.device)
        rollouts = self.rl.rollouts
        rows = {"rows": len(rollouts.completions), "prompts": self.size.questions}
        decoded = {**rows, "prompt": len(rollouts.prompts[0].ids), "new_tokens": self.size.new_tokens}
        piece = estimate.piece_of(rollouts, self.size.rl_micro_tokens)
        self.held["gba"] = estimate.Shapes(peak_gib(self.device), True, piece, decoded)
        return found

    def stock(self) -> dict[str, Any]:
        """The same step by stock parts."""
        if self.rl is None:
            raise SkipError("there is no GBA step to repeat")
        return stock.step(self.loaded, self.size, self.device, self.rl)

    def nf4(self) -> dict[str, Any]:
        """SFT on four-bit weights: of a model that never had an adapter, as a run packs it."""
        nf4.packer()  # before anything is given up for it
        self.policy = self.rl = None
        release(self.device)
        self.policy = made.policy_of(self.size, self.device)
        return nf4.step(self.policy, self.size, self.device)

    @property
    def loaded(self) -> Policy:
        """The model.

        Raises:
            SkipError: it could not be made.
        """
        if self.policy is None:
            raise SkipError("the model was not loaded")
        return self.policy


def measure_size(lines: Lines, of: Measured) -> None:
    """All that is measured of one size; its model is given back at the end."""
    parts: list[tuple[str, Callable[[], Mapping[str, Any]]]] = [
        ("load", of.load),
        ("sft", partial(of.sft, checkpoint=False)),
        ("sft checkpointed", partial(of.sft, checkpoint=True)),
        ("gba", of.gba),
        ("stock", of.stock),
        *(("decode", partial(of.decode, rows)) for rows in of.size.decode_rows),
        ("estimate", lambda: estimate.beside_measured(of.size, of.held, of.device)),
        ("nf4 sft checkpointed", of.nf4),
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
    found = suite.gpu_tests(min(BUDGETS["tests"], lines.left))
    lines.failed |= found["exit_code"] != 0
    return found


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
