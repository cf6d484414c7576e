"""Rows in the course of being written, and the step that writes one more token of each.

A step asks the host for nothing: what it needs lies on the device, and what it writes is looked at later. On a card it
is therefore recorded once and replayed, one launch per token instead of some thousands.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lightning_modules.functional.scoring import log_distribution
from lightning_modules.policy import Policy
from lightning_modules.row_cache import RowCache

Processor = Callable[[Tensor, Sequence[int], int], Tensor]
"""(B, V) log-probabilities, the B rows they belong to, tokens written so far -> (B, V), normalised again."""

Follower = Callable[[int, Sequence[int]], None]
"""A row, and all of its tokens so far; called whenever there are new ones."""

WORTH = 32
"""Tokens from which on a recording, which takes the time of some steps, is made up for."""

log = logging.getLogger(__name__)


class Decoding:
    """What the next step needs, and what was written.

    Attributes:
        ids: of every row, up to its end token.
        logps: in nats, likewise.
        slots: the row that each slot of the cache is writing.
        ended: rows that are done.
    """

    def __init__(
        self,
        policy: Policy,
        cache: RowCache,
        position: Tensor,
        limit: int,
        temperature: float,
        uniforms: Tensor | None,
        processor: Processor | None,
        follow: Follower | None = None,
    ) -> None:
        """Start behind the prompts.

        Args:
            policy: sampled under its active adapters.
            cache: the prompts' keys and values, for B rows.
            position: (A, B) of the prompts' last tokens.
            limit: T_max.
            temperature: of the distribution; 0 takes the most likely token.
            uniforms: (B, T_max) float64 in [0, 1), to draw with; None at temperature 0.
            processor: changes the distribution before it is drawn from.
            follow: is told of what is read.
        """
        self.policy, self.cache, self.temperature, self.processor = policy, cache, temperature, processor
        self.follow = follow
        self.position, self.uniforms = position.clone(), uniforms
        rows, device = cache.rows, policy.device
        self.token = torch.zeros(rows, dtype=torch.long, device=device)
        self.tokens = torch.zeros(rows, limit, dtype=torch.long, device=device)
        self.token_logps = torch.zeros(rows, limit, device=device)
        self.written = torch.zeros(1, 1, dtype=torch.long, device=device)
        self.slots, self.ended, self._seen = list(range(rows)), set[int](), 0
        self.ends = frozenset(policy.family.end_token_ids)
        self.ids: list[list[int]] = [[] for _ in range(rows)]
        self.logps: list[list[float]] = [[] for _ in range(rows)]

    def draw(self, hidden: Tensor, written: int) -> None:
        """Write one token of every row.

        Args:
            hidden: (B, H) states that predict it.
            written: tokens so far; only the processor is told.
        """
        logits = self.policy.family.logits(hidden)
        log_probs = log_distribution(logits, self.policy.banned, self.temperature or 1.0, spare=True)
        if self.processor is not None:
            log_probs = self.processor(log_probs, self.slots, written)
        column = self.written.expand(len(hidden), 1)
        if self.uniforms is None:
            self.token.copy_(log_probs.argmax(-1))
        else:
            self.token.copy_(inverse_cdf(log_probs, self.uniforms.gather(1, column)[:, 0]))
        self.tokens.scatter_(1, column, self.token[:, None])
        self.token_logps.scatter_(1, column, log_probs.gather(1, self.token[:, None]).to(self.token_logps))
        self.written.add_(1)

    def advance(self, written: int) -> None:
        """Read the newest token of every row and write the next; `written` as of `draw`."""
        family = self.policy.family
        self.cache.next_token()
        self.position.add_(1)
        self.draw(family.hidden_states(family.embed_tokens(self.token), self.position, self.cache), written)

    def look(self, written: int) -> list[int]:
        """Wait for the device and read what is new.

        Args:
            written: tokens of every slot.

        Returns:
            Slots whose rows are done.

        Raises:
            RuntimeError: a token was drawn from probabilities that are no numbers. The likeliest of such is the first.
        """
        new = slice(self._seen, written)
        self._seen = written
        for row, ids, logps in zip(
            self.slots, self.tokens[:, new].tolist(), self.token_logps[:, new].tolist(), strict=True
        ):
            known = len(self.ids[row])
            for token, logp in zip(ids, logps, strict=True):
                if row in self.ended:
                    break
                if self.uniforms is not None and not math.isfinite(logp):
                    raise RuntimeError(
                        "a next-token distribution is not finite: did the last update diverge (learning_rate), or is "
                        "a picture's feature not a number?"
                    )
                self.ids[row].append(token)
                self.logps[row].append(logp)
                if token in self.ends:
                    self.ended.add(row)
            if self.follow is not None and len(self.ids[row]) > known:
                self.follow(row, self.ids[row])
        return [slot for slot, row in enumerate(self.slots) if row in self.ended]

    def drop(self, slots: Sequence[int]) -> None:
        """Give up slots whose rows are done."""
        order = self.cache.drop(slots)
        self.slots = [self.slots[slot] for slot in order]
        left = torch.tensor(order, device=self.policy.device)
        self.token, self.position = self.token[left], self.position[:, left]
        self.tokens, self.token_logps = self.tokens[left], self.token_logps[left]
        self.uniforms = None if self.uniforms is None else self.uniforms[left]


class Recorded:
    """A step on a card that is recorded at its second call, and from then on replayed as one launch.

    The first call warms up: kernels choose their workspace then, and a recording must not.
    """

    def __init__(self, step: Callable[[int], None]) -> None:
        """Take a step whose shapes and addresses stay the same and that asks the host for nothing."""
        self.step, self.calls = step, 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, written: int) -> None:
        """Take one step."""
        self.calls += 1
        if self.calls == 2:
            self._record(written)
        if self.graph is None:
            self.step(written)
        else:
            self.graph.replay()

    def _record(self, written: int) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.step(written)
        except RuntimeError as error:
            if "captur" not in str(error):  # CUDA's words for what cannot be recorded; anything else is a failure
                raise
            log.warning("decoding is not recorded, and slower for it: %s", str(error).splitlines()[0])
            return
        self.graph = graph


def worth_recording(device: torch.device, limit: int) -> bool:
    """Whether a step of so many is to be recorded: on a card, where enough of them come, in the weights' own precision.

    Under autocast the copies of weights would be made within the recording, and be found by what comes after it.
    """
    return device.type == "cuda" and limit >= WORTH and not torch.is_autocast_enabled("cuda")


def inverse_cdf(log_probs: Tensor, uniform: Tensor) -> Tensor:
    """Draw one token per row: the first whose cumulative probability exceeds the row's uniform number.

    Args:
        log_probs: (B, V) nats, normalised; minus infinity where a token is banned.
        uniform: (B,) float64 in [0, 1).

    Returns:
        (B,) int64; never a banned token, rounding at the upper end included. Where a probability is not a number some
        token, whose log-probability is none either: nothing here waits for the device to look.
    """
    cumulative = log_probs.exp().cumsum(-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    below = torch.nextafter(total, torch.zeros_like(total))  # rounding may bring u · total up to total itself
    threshold = torch.minimum(uniform[:, None] * total, below)
    return torch.searchsorted(cumulative, threshold, right=True)[:, 0].clamp_(max=log_probs.shape[-1] - 1)
