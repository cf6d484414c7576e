"""Asking a model: the one way from questions to answers, for training, gates, matrix, curation and cards alike.

Everything is batched, and a function of weights, questions and `Decoding` alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from answering.answer import Answer
from answering.decoding import Decoding
from answering.protocols import first_prompt, second_prompt
from datamodules.batch import Example
from datamodules.prompts import NEUTRAL
from evaluation.official import omnimedvqa
from lightning_modules.decoding import Follower
from lightning_modules.families.base import ImageInput
from lightning_modules.policy import Policy
from lightning_modules.prompts import Prompt
from lightning_modules.rollout import sample, stream_seed


def ask(
    policy: Policy,
    questions: Sequence[Example],
    instruction: str,
    decoding: Decoding,
    images: Sequence[Sequence[tuple[str, ImageInput]]] | None = None,
) -> list[Answer]:
    """Put questions as they stand.

    Args:
        policy: asked under its active adapters; nothing in it changes.
        questions: to ask.
        instruction: ends every prompt; empty for the neutral prompt, whose random streams are taken in any case.
        decoding: how.
        images: per question its (key, preprocessed picture) pairs in order, as `Batch.pictures` has them; None reads
            the pictures here.

    Returns:
        The answers in the order of the questions; the samples of a question are contiguous.

    Raises:
        BadExampleError: a picture cannot be read.
    """
    ready = [None] * len(questions) if images is None else images
    prompts = [
        first_prompt(policy, example, instruction, decoding.protocol, pictures)
        for example, pictures in zip(questions, ready, strict=True)
    ]
    return answers(policy, questions, prompts, NEUTRAL, decoding)


def answers(
    policy: Policy, questions: Sequence[Example], prompts: Sequence[Prompt], guideline: str, decoding: Decoding
) -> list[Answer]:
    """Ask with prompts that are written already; the samples of a question are contiguous.

    Args:
        policy: asked under its active adapters.
        questions: to ask.
        prompts: of `first_prompt`, one per question.
        guideline: whose instruction they carry; names the random streams.
        decoding: how.
    """
    if decoding.protocol == "likelihood":
        return likelihoods(policy, questions, prompts)
    first = written(policy, prompts, decoding, streams(questions, guideline, decoding))
    return first if decoding.protocol == "single" else two_turns(policy, questions, prompts, first, guideline, decoding)


def written(
    policy: Policy,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    seeds: Sequence[int],
    follow: Follower | None = None,
) -> list[Answer]:
    """Let the model write behind prompts: the one place where answers are decoded.

    Args:
        policy: asked under its active adapters.
        prompts: P prompts.
        decoding: how; its protocol does not matter here.
        seeds: one per answer, P · `decoding.samples`; not needed at temperature 0.
        follow: is told of each answer's tokens as they come; see `lightning_modules.rollout.sample`.

    Returns:
        P · `decoding.samples` answers; those to a prompt are contiguous.

    Raises:
        ValueError: the seeds do not match the answers.
    """
    completions = sample(
        policy,
        prompts,
        max_new_tokens=decoding.max_new_tokens,
        temperature=decoding.temperature,
        copies=decoding.samples,
        seeds=seeds,
        rows_at_once=decoding.rows_at_once,
        follow=follow,
    )
    return [Answer(reply.text, reply.ids, len(reply.ids), reply.truncated) for reply in completions]


def two_turns(
    policy: Policy,
    questions: Sequence[Example],
    prompts: Sequence[Prompt],
    first: Sequence[Answer],
    guideline: str,
    decoding: Decoding,
) -> list[Answer]:
    """Ask for the letter, after the reasoning; arguments as of `answers`, and the first turn's answers.

    Source: MedXpertQA, arXiv:2501.18362; its released evaluation at f21247d.
    Choice: the letter's turn has a limit of its own, where the release gives 2048 tokens to each; the reading takes
        the first letter, so that only an answer that talks longer before it would differ, and counts as cut off.
    """
    rows = [(e, prompt) for e, prompt in zip(questions, prompts, strict=True) for _ in range(decoding.samples)]
    second = [second_prompt(policy, *row, reply.ids) for row, reply in zip(rows, first, strict=True)]
    last = written(
        policy,
        second,
        replace(decoding, max_new_tokens=decoding.answer_tokens, samples=1),
        streams(questions, guideline, decoding, "second turn"),
    )
    return [
        replace(b, n_tokens=a.n_tokens + b.n_tokens, truncated=a.truncated or b.truncated, turns=(a.completion,))
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
        found.append(Answer("", (), 0, False, option_losses=kept, option_tokens=lengths))
    return found


def streams(questions: Sequence[Example], guideline: str, decoding: Decoding, *turn: str) -> list[int]:
    """The seed of every row's random stream; the variants of a question share it."""
    keys = [(example.question_id, guideline, number) for example in questions for number in range(decoding.samples)]
    return [stream_seed("evaluation", decoding.seed, *key, *turn) for key in keys]
