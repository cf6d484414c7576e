"""What a run in training is asked now and then: its validation questions, greedily, under the neutral prompt."""

from __future__ import annotations

from answering.asking import Decoding, answers, first_prompt
from datamodules.batch import Batch
from datamodules.prompts import NEUTRAL
from evaluation.predictions import Prediction
from evaluation.scorers import Outcome, main_outcome
from lightning_modules.policy import Policy
from lightning_modules.validation import Ask


def validation_asker(max_new_tokens: int) -> Ask:
    """A function that puts a batch's questions to a policy and scores its answers strictly.

    Args:
        max_new_tokens: limit of an answer in tokens.
    """

    def ask(policy: Policy, batch: Batch) -> list[Outcome]:
        questions = batch.examples
        decoding = Decoding(max_new_tokens, 0.0, 1, 0, max(1, len(questions)))
        prompts = [first_prompt(policy, example, "", decoding.protocol) for example in questions]
        with policy.folded():
            given = answers(policy, questions, prompts, NEUTRAL, decoding)
        return [
            main_outcome(
                Prediction(
                    model="",
                    specialty="",
                    question_id=example.question_id,
                    patient_id=example.patient_id,
                    guideline=NEUTRAL,
                    options=example.options,
                    answer_letter=example.letter if example.options else "",
                    completion=answer.completion,
                    answer="" if example.options else example.answer,
                )
            )
            for example, answer in zip(questions, given, strict=True)
        ]

    return ask
