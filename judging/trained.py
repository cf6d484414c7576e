"""A trained reward model as a judge: it grades each answer by itself, so that no place can sway it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from math import exp, isfinite
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from typing_extensions import override

from datamodules.batch import BadExampleError, Example
from guards.ranges import Ranged, at_least
from judging.cases import DIMENSIONS
from judging.confidence import sure_reply
from judging.judge import Judge, JudgeError, Reply, Request
from judging.messages import HIGHEST, LOWEST, Mode

if TYPE_CHECKING:
    from answering.grader import Grader


class TrainedJudge(Judge):
    """A model that `lightning_modules.reward_model.RewardModel` trained.

    It is shown the question, the picture and one answer, as in its training, and no instruction. A pair's verdicts
    follow from the difference of two rewards; their probabilities, at the temperature that was fitted on validation
    pairs, stand in the reply. Grades are the odds that an answer is good, from 1 to 10; they rank, and no more.
    """

    modes: ClassVar[Sequence[Mode]] = ("pair", "score")

    @dataclass(frozen=True)
    class Config(Ranged):
        """Which model."""

        config: str
        """Experiment file that trained it, as `train.py --config` takes it."""
        overrides: tuple[str, ...] = ()
        """Dotted `key=value` settings of that file."""
        specialty: str = "judge"
        """Its run in that experiment."""
        requests_at_once: Annotated[int, at_least(1)] = 16
        """Requests read together, and kept together when the run is stopped; at least 1."""

    def __init__(self, config: Config) -> None:
        """Keep the configuration; the model is loaded when it is first needed."""
        self.config = config

    @cached_property
    def grader(self) -> Grader:
        """The model.

        Raises:
            JudgeError: the experiment is not finished, or its run is no reward model of these dimensions.
        """
        from experiment.graders import grader_of  # torch, which a wrong command need not wait for

        c = self.config
        try:
            found = grader_of(c.config, c.overrides, c.specialty)
        except ValueError as error:
            raise JudgeError(str(error)) from error
        if found.objective != "preference" or not set(found.dimensions) & set(DIMENSIONS):
            raise JudgeError(
                f"{c.config}: learnt {found.objective} on {', '.join(found.dimensions)}; a judge learns preferences on "
                f"some of {', '.join(DIMENSIONS)}"
            )
        return found

    @property
    @override
    def identity(self) -> Mapping[str, Any]:
        return {"judge": "trained", **self.grader.identity}

    @override
    def replies(self, requests: Sequence[Request]) -> Iterator[tuple[Request, Reply]]:
        size = self.config.requests_at_once
        with self.grader.acting() as grades:
            for start in range(0, len(requests), size):
                part = requests[start : start + size]
                try:
                    found = grades([(as_question(request), request.answers) for request in part])
                except BadExampleError as error:
                    raise JudgeError(str(error)) from error
                for request, rewards in zip(part, found, strict=True):
                    yield request, Reply(self.said(rewards.tolist()))

    def said(self, rewards: Sequence[Sequence[float]]) -> str:
        """The reply to a request, from the rewards of its answers, (answers, D).

        Of rewards that are not finite it holds no verdict, so that none is read.
        """
        if not all(map(isfinite, chain.from_iterable(rewards))):
            return "no verdict: rewards are not finite"
        names, temperature = self.grader.dimensions, self.grader.temperature
        if len(rewards) == 1:
            grades = {name: grade(value) for name, value in zip(names, rewards[0], strict=True)}
            return json.dumps({name: grades.get(name, (LOWEST + HIGHEST) / 2) for name in DIMENSIONS})
        first, second = rewards
        margins = {name: a - b for name, a, b in zip(names, first, second, strict=True)}
        return sure_reply({name: probability(margin / temperature) for name, margin in margins.items()})


def grade(reward: float) -> float:
    """Log-odds as a grade of `score` mode."""
    return LOWEST + (HIGHEST - LOWEST) * probability(reward)


def probability(log_odds: float) -> float:
    """σ."""
    return 1 / (1 + exp(-log_odds)) if log_odds >= 0 else exp(log_odds) / (1 + exp(log_odds))


def as_question(request: Request) -> Example:
    """What is asked, with the options where they stand in its text; its answer is nobody's business."""
    return Example(
        patient_id=request.key,
        images=request.pictures,
        question=request.question,
        options=(),
        answer="a verdict",
        question_id=request.case_id,
    )
