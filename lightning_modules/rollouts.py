"""A batch of rollouts: P questions, R completions each under K guidelines, with rewards and advantages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from datamodules.batch import Example
from datamodules.prompts import NEUTRAL
from lightning_modules.advantages.advantage import Advantage, Outcome, among_known
from lightning_modules.layout import Layout
from lightning_modules.prompts import Prompt
from lightning_modules.rewards.combine import Reward
from lightning_modules.rollout import Completion


@dataclass
class Rollouts:
    """Rows in the order question, guideline, copy; row b belongs to question b // R.

    Attributes:
        examples: P questions.
        places: (P,) of each question within the whole step, over all devices.
        layout: how R rollouts are spread.
        carried: (P, K) the guideline that stands in for each of the layout's: itself, unless a choice was made.
        prompts: P · K prompts.
        neutral_prompts: P prompts without an instruction, or none where nothing is scored under them.
        completions: P · R.
        rewards: P · R, by term.
        prior: guideline name -> what its file gives it; all that may be carried, in order.
        states: (P,) of each question, where a choice read them.
        advantages: (P, R) float64.
        old_logps: row -> (T_b,) nats before the first update on these rollouts.
        ref_logps: row -> (T_b,) nats under the reference, where they were needed before the update.
    """

    examples: tuple[Example, ...]
    places: tuple[int, ...]
    layout: Layout
    carried: list[tuple[str, ...]]
    prompts: list[Prompt]
    neutral_prompts: list[Prompt]
    completions: list[Completion]
    rewards: list[Reward]
    prior: Mapping[str, float]
    states: list[Tensor] = field(default_factory=list)
    advantages: Tensor = field(default_factory=lambda: torch.zeros(0))
    old_logps: dict[int, Tensor] = field(default_factory=dict)
    ref_logps: dict[int, Tensor] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """(P, R)."""
        return len(self.examples), self.layout.size

    def weigh(self, advantage: Advantage) -> None:
        """Give every rollout its advantage beside its siblings; those of unknown reward have none."""
        self.advantages = torch.zeros(self.shape, dtype=torch.float64)
        for questions, outcome in self.outcomes():
            self.advantages[questions] = among_known(advantage, outcome, self.known[questions])

    def outcomes(self) -> Iterator[tuple[list[int], Outcome]]:
        """What advantages are made of, for each set of questions whose places carry the same guidelines."""
        parts = [self.earned(name) for name in PARTS]
        names, prior = tuple(self.prior), torch.tensor(list(self.prior.values()), dtype=torch.float64)
        for carried in dict.fromkeys(self.carried):
            questions = [question for question, own in enumerate(self.carried) if own == carried]
            guideline_of = torch.tensor([names.index(carried[k]) for k, _ in self.layout.places])
            yield questions, Outcome(*(part[questions] for part in parts), guideline_of, names, prior)

    def earned(self, part: str) -> Tensor:
        """(P, R) float64 of `total`, `between` or `within`, as of `Outcome`."""
        return self.table([getattr(item, part) for item in self.rewards])

    def table(self, values: Sequence[float | bool | None]) -> Tensor:
        """(P, R) float64 of one value per row; NaN where there is none."""
        known = [float("nan") if value is None else float(value) for value in values]
        return torch.tensor(known, dtype=torch.float64).reshape(self.shape)

    def term(self, name: str) -> Tensor:
        """(P, R) float64 of one reward term, unweighted; NaN where it does not apply."""
        return self.table([item.parts.get(name) for item in self.rewards])

    @property
    def known(self) -> Tensor:
        """(P, R) bool: every reward term that applies could be had."""
        return self.table([not item.unknown for item in self.rewards]).bool()

    @property
    def right(self) -> Tensor:
        """(P, R) float64: 1 where the answer is right."""
        return self.table([item.right for item in self.rewards])

    @property
    def lengths(self) -> Tensor:
        """(P · R,) completion lengths in tokens."""
        return torch.tensor([len(completion.ids) for completion in self.completions])

    def outline(self) -> Rollouts:
        """The same without prompts, pictures, texts and log-probabilities: enough to report, small enough to send."""
        return Rollouts(
            tuple(replace(example, images=(), reasoning={}) for example in self.examples),
            self.places,
            self.layout,
            self.carried,
            [],
            [],
            [replace(completion, logps=(), text="") for completion in self.completions],
            self.rewards,
            self.prior,
            advantages=self.advantages,
        )

    # -- rows ----------------------------------------------------------------------------------------------------

    def guideline(self, row: int) -> str:
        """The guideline that a row's prompt carried."""
        question, place = divmod(row, self.layout.size)
        return self.carried[question][self.layout.places[place][0]]

    def under(self, guideline: str) -> Tensor:
        """(P, R) bool: which rollouts' prompts carried a guideline."""
        return self.table([self.guideline(row) == guideline for row in range(len(self.completions))]).bool()

    def prompt(self, row: int) -> Prompt:
        """The prompt that a row answered."""
        question, place = divmod(row, self.layout.size)
        return self.prompts[question * len(self.layout.guidelines) + self.layout.places[place][0]]

    def neutral_prompt(self, row: int) -> Prompt:
        """The same question without an instruction."""
        return self.neutral_prompts[row // self.layout.size]

    def teacher_prompt(self, row: int) -> Prompt | None:
        """The prompt of the guideline that answers the row's question better than the neutral prompt does, if any."""
        question = row // self.layout.size
        names = self.carried[question]
        means = {name: mean for name in names if (mean := self.mean_between(question, name)) is not None}
        best = max((name for name in means if name != NEUTRAL), key=means.__getitem__, default=None)
        if best is None or not means[best] > means.get(NEUTRAL, float("inf")):
            return None
        return self.prompts[question * len(names) + names.index(best)]

    def mean_between(self, question: int, guideline: str) -> float | None:
        """μ_k: mean of a question's compared reward under a guideline; None where no rollout's is known."""
        first = question * self.layout.size
        rows = [row for row in range(first, first + self.layout.size) if self.guideline(row) == guideline]
        known = [self.rewards[row].between for row in rows if not self.rewards[row].unknown]
        return sum(known) / len(known) if known else None

    def ids(self, rows: Sequence[int]) -> list[tuple[int, ...]]:
        """Completion tokens of some rows."""
        return [self.completions[row].ids for row in rows]

    def advantages_of(self, rows: Sequence[int]) -> Tensor:
        """(B,) advantages of some rows."""
        return self.advantages.flatten()[list(rows)]

    def sampler_logps(self, rows: Sequence[int]) -> Tensor:
        """(B, T) nats as sampled, zero outside their length."""
        return pad_sequence([torch.tensor(self.completions[row].logps) for row in rows], batch_first=True)

    def remember(self, held: dict[int, Tensor], rows: Sequence[int], logps: Tensor) -> None:
        """Keep (B, T) log-probabilities of some rows in `old_logps` or `ref_logps`, without their padding."""
        for row, values in zip(rows, logps, strict=True):
            held[row] = values[: len(self.completions[row].ids)]

    # -- pieces --------------------------------------------------------------------------------------------------

    def minibatches(self, count: int, questions: int) -> list[list[int]]:
        """Rows of each of so many parts, by the places of their questions in the whole step.

        Args:
            count: parts, at most `questions`.
            questions: of the whole step, over all devices; so the parts do not depend on the number of devices.
        """
        parts: list[list[int]] = [[] for _ in range(count)]
        for row in range(len(self.completions)):
            parts[self.places[row // self.layout.size] * count // questions].append(row)
        return parts

    def micro_batches(self, rows: Sequence[int], tokens: int, *, neutral_too: bool = False) -> Iterator[list[int]]:
        """Cut rows into pieces of at most `tokens` packed tokens, in order; a longer row stands alone.

        A question's rows stay together where they fit, so that its shared prefix is computed once.

        Args:
            rows: in order.
            tokens: bound on a piece's tokens, shared prefixes counted once.
            neutral_too: the rows are scored under the neutral prompt as well.
        """
        piece: list[int] = []
        size = 0
        for question in self.by_question(rows):
            whole = self.packed_tokens(question, neutral_too)
            if piece and size + whole > tokens:
                yield piece
                piece, size = [], 0
            if size + whole <= tokens:
                piece, size = piece + question, size + whole
                continue
            for row in question:  # a question that is too long by itself; piece is empty here
                if piece and self.packed_tokens([*piece, row], neutral_too) > tokens:
                    yield piece
                    piece = []
                piece.append(row)
            size = self.packed_tokens(piece, neutral_too)
        if piece:
            yield piece

    def by_question(self, rows: Sequence[int]) -> list[list[int]]:
        """The same rows, those of one question together."""
        found: dict[int, list[int]] = {}
        for row in rows:
            found.setdefault(row // self.layout.size, []).append(row)
        return list(found.values())

    def packed_tokens(self, rows: Sequence[int], neutral_too: bool = False) -> int:
        """Tokens that the language model runs on for these rows, shared prefixes counted once."""
        prompts = [self.prompt(row) for row in rows] + [self.neutral_prompt(row) for row in rows if neutral_too]
        shared = sum({prompt.prefix: prompt.shared for prompt in prompts}.values())
        rests = sum(len(prompt.ids) - prompt.shared for prompt in prompts)
        return shared + rests + (1 + neutral_too) * sum(len(self.completions[row].ids) for row in rows)


PARTS = ("total", "between", "within")
"""What `Outcome` takes of a `Reward`."""


def padded(held: Mapping[int, Tensor], rows: Sequence[int]) -> Tensor:
    """(B, T) of per-row values, zero outside their length."""
    return pad_sequence([held[row] for row in rows], batch_first=True)


def joined(parts: Sequence[Rollouts]) -> Rollouts:
    """Rollouts of several batches, or of several devices, as one in the order of their places.

    Log-probabilities that were remembered are not carried over.
    """
    whole = Rollouts(
        tuple(example for part in parts for example in part.examples),
        tuple(place for part in parts for place in part.places),
        parts[0].layout,
        *([item for part in parts for item in getattr(part, name)] for name in JOINED),
        parts[0].prior,
        [state for part in parts for state in part.states],
        torch.cat([part.advantages for part in parts]),
    )
    return chosen(whole, sorted(range(len(whole.places)), key=whole.places.__getitem__))


def chosen(rollouts: Rollouts, questions: Sequence[int]) -> Rollouts:
    """The rollouts of some questions, before any log-probability is remembered."""

    def of(items: list, each: int) -> list:
        return [item for q in questions for item in items[q * each : (q + 1) * each]]

    k, r = len(rollouts.layout.guidelines), rollouts.layout.size
    return Rollouts(
        tuple(rollouts.examples[q] for q in questions),
        tuple(rollouts.places[q] for q in questions),
        rollouts.layout,
        of(rollouts.carried, 1),
        of(rollouts.prompts, k),
        of(rollouts.neutral_prompts, 1) if rollouts.neutral_prompts else [],
        of(rollouts.completions, r),
        of(rollouts.rewards, r),
        rollouts.prior,
        of(rollouts.states, 1) if rollouts.states else [],
        rollouts.advantages[list(questions)] if len(rollouts.advantages) else rollouts.advantages,
    )


JOINED = ("carried", "prompts", "neutral_prompts", "completions", "rewards")
