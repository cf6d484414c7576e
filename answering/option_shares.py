"""How sure a model is of its choice: the probability of each option in the place where it wrote its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from answering.protocols import with_pictures_of
from evaluation.answers import LETTERS, extract, strict_block
from lightning_modules.policy import Policy
from lightning_modules.prompts import Prompt, common_length

OPEN, CLOSE = "<answer>", "</answer>"


@dataclass(frozen=True)
class OptionShares:
    """Probabilities of the options behind a given reasoning.

    Attributes:
        shares: of each option, in order; they sum to 1.
        mass: what all options have together; the rest is on texts that are no option.
    """

    shares: tuple[float, ...]
    mass: float


@torch.no_grad()
def option_shares(policy: Policy, prompt: Prompt, completion: str, options: Sequence[str]) -> OptionShares | None:
    """Measure the options in place of the one that was written.

        p(option) = sum over its forms of p(form </answer> end | prompt, reasoning <answer>)

    An option's forms are its letter and its text, as far as the strict reader takes them for that option.

    Args:
        policy: under its active adapters.
        prompt: that was answered.
        completion: the answer.
        options: as they were shown.

    Returns:
        None where the answer has no answer block: there is no place to measure in.

    Choice: behind the reasoning, so that it tells how firmly the conclusion follows from it, and not how good the
        reasoning is. Texts are tokenised whole, as in training; what all of them begin with is run once.
    """
    if not options or strict_block(completion)[0] is None:
        return None
    head = completion.partition(OPEN)[0] + OPEN
    forms: dict[str, str] = {}
    for form in dict.fromkeys([*LETTERS[: len(options)], *options]):
        letter = extract(text := f"{head}{form}{CLOSE}", options).letter
        if letter is not None:
            forms[text] = letter
    ids = [[*policy.family.text_ids(text), policy.family.eos_token_id] for text in forms]
    begun = common_length(ids)
    asked = with_pictures_of(policy, [*prompt.ids, *ids[0][:begun]], prompt)
    scores = policy.score([asked] * len(ids), [tokens[begun:] for tokens in ids])
    found = dict.fromkeys(LETTERS[: len(options)], 0.0)
    for letter, p in zip(forms.values(), scores.logps.double().sum(1).exp().tolist(), strict=True):
        found[letter] += p
    mass = sum(found.values())
    shares = tuple(p / mass if mass > 0 else 1 / len(found) for p in found.values())
    return OptionShares(shares, mass)
