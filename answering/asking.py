"""How questions are asked: in one turn, in MedXpertQA's two turns, or by the likelihood of each option.

The released protocols' wording stands in `evaluation.official`; here are their prompts for any model family, and what
is done with them. Everything is batched, and a function of weights, questions and `Decoding` alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from datamodules.batch import Example
from evaluation.official import medxpertqa, omnimedvqa
from lightning_modules.policy import Policy
from lightning_modules.prompts import Prompt
from lightning_modules.rollout import Completion, sample, stream_seed

ProtocolName = Literal["single", "two_turn", "likelihood"]

TEXTS: dict[ProtocolName, tuple[str, ...]] = {
    "single": (),
    "two_turn": (
        medxpertqa.SYSTEM,
        medxpertqa.first_turn(medxpertqa.released_question("{question}", ("{option}", "{option}"))) + "{pictures}",
        medxpertqa.second_turn(2),
    ),
    "likelihood": (
        "{pictures}" + omnimedvqa.prefix("{question}"),
        omnimedvqa.continuation("{option}"),
    ),
}
"""What a released protocol says around a question: part of what was asked, so that other words are another protocol."""


@dataclass(frozen=True)
class Decoding:
    """How answers are drawn.

    Attributes:
        max_new_tokens: limit of an answer in tokens; of two turns, of the first.
        temperature: 0 takes the most likely token.
        samples: answers per question and guideline.
        seed: of the draws.
        rows_at_once: answers decoded together.
        protocol: how a question is asked.
        answer_tokens: limit of the second turn's answer in tokens.
    """

    max_new_tokens: int
    temperature: float
    samples: int
    seed: int
    rows_at_once: int
    protocol: ProtocolName = "single"
    answer_tokens: int = 64

    def questions_at_once(self, questions: Sequence[Example]) -> int:
        """How many of these questions make `rows_at_once` rows; an option that is measured is a row."""
        measured = max((len(example.options) for example in questions), default=1)
        return max(1, self.rows_at_once // (measured if self.protocol == "likelihood" else self.samples))


@dataclass(frozen=True)
class Answer:
    """What one row of asking gave; attributes as of `evaluation.predictions.Prediction`."""

    completion: str
    n_tokens: int
    truncated: bool
    turns: tuple[str, ...] = ()
    option_losses: tuple[float, ...] = ()
    option_tokens: tuple[int, ...] = ()


def first_prompt(policy: Policy, example: Example, instruction: str, protocol: ProtocolName) -> Prompt:
    """What a question's first, or only, prompt holds.

    Args:
        policy: whose family writes it.
        example: the question; with options, unless the protocol is `single`.
        instruction: of a guideline, for `single`; the released protocols have their own words.
        protocol: two turns begin with the release's system prompt, then one user turn of stem, options and, after
            them, the pictures. Options are measured after the pictures and plain text, in no chat, as in the release's
            scripts.

    Raises:
        BadExampleError: a picture cannot be read.
    """
    plain = policy.prompt(example, instruction)
    if protocol == "single":
        return plain
    counts = [item.n_tokens for _, item in plain.images]
    if protocol == "likelihood":
        ids = policy.family.plain_ids(omnimedvqa.prefix(example.question), counts)
    else:
        text = medxpertqa.first_turn(medxpertqa.released_question(example.question, example.options))
        ids = policy.family.prompt_ids(text, counts, system=medxpertqa.SYSTEM, pictures_last=True)
    return _prompt(policy, ids, plain)


def answers(
    policy: Policy, questions: Sequence[Example], prompts: Sequence[Prompt], guideline: str, decoding: Decoding
) -> list[Answer]:
    """Ask; the samples of a question are contiguous.

    Args:
        policy: asked under its active adapters.
        questions: to ask.
        prompts: of `first_prompt`, one per question.
        guideline: whose instruction they carry; names the random streams.
        decoding: how.
    """
    if decoding.protocol == "likelihood":
        return likelihoods(policy, questions, prompts)
    first = _replies(policy, questions, prompts, guideline, decoding)
    if decoding.protocol == "single":
        return [Answer(reply.text, len(reply.ids), reply.truncated) for reply in first]
    return two_turns(policy, questions, prompts, first, guideline, decoding)


def two_turns(
    policy: Policy,
    questions: Sequence[Example],
    prompts: Sequence[Prompt],
    first: Sequence[Completion],
    guideline: str,
    decoding: Decoding,
) -> list[Answer]:
    """Ask for the letter, after the reasoning; arguments as of `answers`, and the first turn's completions.

    The second prompt is the chat so far, see `VisionLanguageFamily.continued_ids`; pictures are not shown again.

    Source: MedXpertQA, arXiv:2501.18362; its released evaluation at f21247d.
    Choice: the letter's turn has a limit of its own, where the release gives 2048 tokens to each; the reading takes
        the first letter, so that only an answer that talks longer before it would differ, and counts as cut off.
    """
    rows = [(e, prompt) for e, prompt in zip(questions, prompts, strict=True) for _ in range(decoding.samples)]
    second = []
    for (example, prompt), reply in zip(rows, first, strict=True):
        trigger = medxpertqa.second_turn(len(example.options))
        second.append(_prompt(policy, policy.family.continued_ids(prompt.ids, reply.ids, trigger), prompt))
    last = sample(
        policy,
        second,
        max_new_tokens=decoding.answer_tokens,
        temperature=decoding.temperature,
        seeds=_seeds(questions, guideline, decoding, "second turn"),
        rows_at_once=decoding.rows_at_once,
    )
    return [
        Answer(b.text, len(a.ids) + len(b.ids), a.truncated or b.truncated, turns=(a.text,))
        for a, b in zip(first, last, strict=True)
    ]


@torch.no_grad()
def likelihoods(policy: Policy, questions: Sequence[Example], prompts: Sequence[Prompt]) -> list[Answer]:
    """Measure every option as the continuation of its question; nothing is generated. Arguments as of `answers`.

        loss(option) = - (1 / T) Σ_t log p(token_t | pictures, prefix, tokens before t)

    over the T tokens of the option with the blank before it and the full stop after it. A question's prefix is computed
    once for all of its options.

    Source: OmniMedVQA, arXiv:2402.09181; its released prefix-based score at ddd9465, whose scripts for LLaVA,
        Otter and others divide by T.
    Choice: the option is tokenised by itself, which is the release's split as long as no token reaches over the
        blank; tokens that no text holds (pictures, beginnings of turns) have probability 0, as in all decoding here.
        T is kept, so that sums can be had. A question of which a loss is not finite keeps none, and counts as wrong.
    """
    rows = [
        (prompt, policy.family.text_ids(omnimedvqa.continuation(option)))
        for example, prompt in zip(questions, prompts, strict=True)
        for option in example.options
    ]
    scores = policy.score([prompt for prompt, _ in rows], [ids for _, ids in rows])
    tokens = scores.completion_mask.sum(1)
    measured = list(zip((-scores.logps.double().sum(1) / tokens).tolist(), tokens.tolist(), strict=True))
    found = []
    for example in questions:
        own, measured = measured[: len(example.options)], measured[len(example.options) :]
        losses, lengths = zip(*own, strict=True)
        kept = losses if all(map(math.isfinite, losses)) else ()
        found.append(Answer("", 0, False, option_losses=kept, option_tokens=lengths))
    return found


def _replies(
    policy: Policy, questions: Sequence[Example], prompts: Sequence[Prompt], guideline: str, decoding: Decoding
) -> list[Completion]:
    return sample(
        policy,
        prompts,
        max_new_tokens=decoding.max_new_tokens,
        temperature=decoding.temperature,
        copies=decoding.samples,
        seeds=_seeds(questions, guideline, decoding),
        rows_at_once=decoding.rows_at_once,
    )


def _seeds(questions: Sequence[Example], guideline: str, decoding: Decoding, *turn: str) -> list[int]:
    """One stream per row; the variants of a question share it."""
    keys = [(example.question_id, guideline, number) for example in questions for number in range(decoding.samples)]
    return [stream_seed("evaluation", decoding.seed, *key, *turn) for key in keys]


def _prompt(policy: Policy, ids: Sequence[int], shown: Prompt) -> Prompt:
    """A prompt of these tokens with another's pictures; all but its last token may be shared."""
    positions = policy.family.position_ids(ids, [item.grid for _, item in shown.images])
    return Prompt(tuple(ids), shown.images, positions, shared=len(ids) - 1)
