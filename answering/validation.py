"""What a run in training is asked now and then: its validation questions, greedily, under the neutral prompt."""

from __future__ import annotations

from answering.asking import ask
from answering.decoding import Decoding
from datamodules.batch import Batch
from evaluation.scorers import Outcome, main_outcome
from lightning_modules.policy import Policy
from lightning_modules.validation import Ask


def validation_asker(max_new_tokens: int) -> Ask:
    """A function that puts a batch's questions to a policy and scores its answers strictly.

    Args:
        max_new_tokens: limit of an answer in tokens.
    """
    decoding = Decoding(max_new_tokens)

    def outcomes(policy: Policy, batch: Batch) -> list[Outcome]:
        with policy.folded():
            given = ask(policy, batch.examples, "", decoding, batch.pictures or None)
        return [main_outcome(a.prediction(e)) for e, a in zip(batch.examples, given, strict=True)]

    return outcomes
