"""Sizing on paper: what one, eight and 64 cards hold, move and take for a number of rollouts. All of it is estimated.

    python -m benchmarks.sizing [--rollouts 1e8]

Nothing is measured here: every figure is arithmetic on `Assumptions`, which docs/scale.md repeats beside its tables.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass

CARDS = (1, 8, 64)
GB = 1e9
DAY = 86400.0


@dataclass(frozen=True)
class Assumptions:
    """A 7 B model, GBA, and a card with 80 GB; bytes, seconds, floating-point operations."""

    layers: int = 28
    hidden: int = 3584
    key_value: int = 512
    """Width of all key heads together, and of all value heads."""
    intermediate: int = 18944
    vocabulary: int = 152064
    vision_parameters: float = 0.676e9
    rank: int = 64
    """Of the LoRA on all linear layers of the language model."""
    prefix: int = 1224
    """Tokens of picture (1,024) and question, run once for all rollouts of it."""
    completion: int = 512
    """Tokens of a rollout."""
    group: int = 8
    """Rollouts of a question."""
    questions_per_card: int = 8
    """Of a step, so that a step grows with the cards."""
    card_memory: float = 80e9
    bandwidth: float = 3.35e12
    """Of the card's memory, per second."""
    peak: float = 989e12
    """Dense bf16 operations per second."""
    used: float = 0.4
    """Share of `peak` that training reaches."""
    read: float = 0.5
    """Share of `bandwidth` that decoding reaches."""
    within: float = 450e9
    """Between cards of one machine of eight, per second and card."""
    between: float = 50e9
    """Between machines, per second and card (400 Gbit/s)."""
    disk: float = 2e9
    """Written to a shared file system per second."""
    text: float = 4.0
    """Bytes of text per token."""

    @property
    def layer_parameters(self) -> int:
        """Weights of the linear layers of one block."""
        h, kv, i = self.hidden, self.key_value, self.intermediate
        return 2 * h * h + 2 * h * kv + 3 * h * i

    @property
    def language(self) -> int:
        """Weights that a token meets: the blocks and the head."""
        return self.layers * self.layer_parameters + self.vocabulary * self.hidden

    @property
    def parameters(self) -> float:
        """All weights: blocks, input and output embedding, vision tower."""
        return self.language + self.vocabulary * self.hidden + self.vision_parameters

    @property
    def trained(self) -> int:
        """Weights of the LoRA: r (in + out) per linear layer."""
        h, kv, i = self.hidden, self.key_value, self.intermediate
        return self.layers * self.rank * (2 * (h + h) + 2 * (h + kv) + 3 * (h + i))

    @property
    def cache_per_token(self) -> int:
        """Bytes of keys and values of a token in bf16."""
        return 2 * self.layers * self.key_value * 2

    @property
    def rollouts_per_card(self) -> int:
        """Of a step."""
        return self.questions_per_card * self.group


def memory(a: Assumptions) -> float:
    """Bytes of GBA per card without activations.

    Base in bf16, the expert beneath in fp32, adapter with gradient and moments in fp32, and the rollouts' cache, in
    which each row has a copy of its question's prefix.
    """
    cache = a.cache_per_token * a.rollouts_per_card * (a.prefix + a.completion)
    return 2 * a.parameters + (4 + 16) * a.trained + cache


def sharded_memory(a: Assumptions, cards: int) -> float:
    """Bytes of DSA per card under FSDP2 without activations: blocks dealt out, two gathered at a time, others whole."""
    block = 2 * a.layer_parameters
    shared = a.layers * block
    gathered = 2 * block if cards > 1 else 0
    return 2 * a.parameters - shared + shared / cards + gathered + 16 * a.trained


def decode_seconds(a: Assumptions) -> float:
    """A step's rollouts on each card: for each token all weights are read once, and all places of every row's cache."""
    per_token = 2 * a.language + a.cache_per_token * a.rollouts_per_card * (a.prefix + a.completion)
    return a.completion * per_token / (a.read * a.bandwidth)


def train_seconds(a: Assumptions) -> float:
    """A step's gradient on each card, operations per weight and token: 8.

    Two each for the reference's pass, forward, forward again (checkpointing), and backward to the activations.
    """
    tokens = a.questions_per_card * (a.prefix + a.group * a.completion)
    return 8 * a.language * tokens / (a.used * a.peak)


def reduced(a: Assumptions, cards: int) -> float:
    """Bytes that each card sends in a step under DDP: its share of a ring over the adapter's fp32 gradients."""
    return 2 * (cards - 1) / cards * 4 * a.trained


def gathered(a: Assumptions, cards: int) -> float:
    """Bytes that each card receives in a step under FSDP: the base, for every decoded token and three passes."""
    return (a.completion + 3) * (cards - 1) / cards * 2 * a.parameters


def wire_seconds(a: Assumptions, cards: int, moved: float) -> float:
    """Time for bytes of each card, on the slowest wire that they pass."""
    return 0.0 if cards == 1 else moved / (a.within if cards <= 8 else a.between)


def step_seconds(a: Assumptions, cards: int) -> float:
    """One step under DDP, nothing overlapped."""
    return decode_seconds(a) + train_seconds(a) + wire_seconds(a, cards, reduced(a, cards))


def rows(a: Assumptions, rollouts: float) -> Iterable[tuple[str, list[str]]]:
    """(what, per number of cards) of the table."""

    def each(form: str, value: object) -> list[str]:
        return [form.format(value(cards)) for cards in CARDS]

    yield "rollouts per step", each("{:,}", lambda n: n * a.rollouts_per_card)
    yield f"steps for {rollouts:.0e} rollouts", each("{:,.0f}", lambda n: rollouts / (n * a.rollouts_per_card))
    yield (
        "memory per card under DDP, GB, without activations",
        each("{:.1f}", lambda n: memory(a) / GB),
    )
    yield "of DSA under FSDP2, GB, also without activations", each("{:.1f}", lambda n: sharded_memory(a, n) / GB)
    yield "decoding per step, s", each("{:.1f}", lambda n: decode_seconds(a))
    yield "scoring and gradient per step, s", each("{:.1f}", lambda n: train_seconds(a))
    yield "sent per card and step under DDP, GB", each("{:.2f}", lambda n: reduced(a, n) / GB)
    yield "on the wire, s", each("{:.3f}", lambda n: wire_seconds(a, n, reduced(a, n)))
    yield "received per card and step if decoding ran under FSDP2, GB", each("{:,.0f}", lambda n: gathered(a, n) / GB)
    yield "on the wire, s", each("{:.0f}", lambda n: wire_seconds(a, n, gathered(a, n)))
    total = {n: rollouts / (n * a.rollouts_per_card) * step_seconds(a, n) for n in CARDS}
    yield "days for all rollouts under DDP", each("{:,.0f}", lambda n: total[n] / DAY)
    yield "card-days", each("{:,.0f}", lambda n: n * total[n] / DAY)


def stored(a: Assumptions, rollouts: float) -> Iterable[tuple[str, str]]:
    """(what, size) on disk and in memory, whatever the number of cards."""
    yield "adapter, fp32", f"{4 * a.trained / GB:.2f} GB"
    checkpoint = 12 * a.trained
    yield "checkpoint: adapter and two moments, fp32", f"{checkpoint / GB:.2f} GB, {checkpoint / a.disk:.1f} s to write"
    yield f"texts of {rollouts:.0e} rollouts", f"{rollouts * a.completion * a.text / 1e12:.2f} TB"
    yield "their token ids and log-probabilities (4 + 4 bytes a token)", f"{rollouts * a.completion * 8 / 1e12:.2f} TB"
    yield "picture features of one picture, bf16 (1,024 tokens)", f"{1024 * a.hidden * 2 / 1e6:.1f} MB"
    yield "of a million pictures", f"{1e6 * 1024 * a.hidden * 2 / 1e12:.1f} TB"
    yield "adapter sent to a rollout engine each step, over 50 GB/s", f"{4 * a.trained / a.between * 1e3:.0f} ms"


def tables(rollouts: float) -> str:
    """Both tables in Markdown."""
    a = Assumptions()
    lines = [
        "| estimated | " + " | ".join(f"{n} card{'s' * (n > 1)}" for n in CARDS) + " |",
        "|---|" + "--:|" * len(CARDS),
    ]
    lines += [f"| {what} | {' | '.join(values)} |" for what, values in rows(a, rollouts)]
    lines += ["", "| estimated | size |", "|---|--:|", *(f"| {what} | {size} |" for what, size in stored(a, rollouts))]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=float, default=1e8, help="in all")
    print(tables(parser.parse_args(sys.argv[1:]).rollouts))
