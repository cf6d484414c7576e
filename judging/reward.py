"""A rubric as a reward term: a model behind an endpoint marks every reasoning that reinforcement learning rolls out.

Every reply is kept under the hash of what was asked, so that nothing is asked twice, not even by a resumed run. What
got no reply in a step that was taken is noted in the run's folder, and stays unknown when the step is taken again.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, ClassVar

from typing_extensions import override

from answering.answer import Answer
from artifacts.manifest import get_text, put_text
from configs.build import build, config_of
from configs.schema import Checked, Component, Slot
from datamodules.batch import Example, load_image
from guards.ranges import above
from judging.endpoint import EndpointJudge, identity_of
from judging.judge import Reply
from judging.marking import Asked, asked_about
from judging.rubrics import VERSION, Rubric, load_rubric, verdicts
from lightning_modules.rewards.judge import JudgeTerm
from lightning_modules.rewards.term import UNKNOWN, Judged

UNANSWERED = "unanswered.{rank}.json"
"""In a run's folder: keys of the requests of its steps that got no reply, by device."""


def rubric_faults(name: str) -> list[str]:
    """Why a rubric cannot be paid by; empty where it can."""
    try:
        rubric = load_rubric(name)
    except ValueError as error:
        return [str(error)]
    if rubric.form == "judge_tag":
        return [f"rubric {name!r} takes a reply that cannot be read for a no, and a reward must not; take `open`"]
    return []


class RubricJudge(JudgeTerm):
    """The share of a rubric's criteria that a served model finds met, 0 to 1.

    Unknown is a reasoning of which a criterion is not decided: no reply came, it did not fit the form, or it said
    that the matter is unclear. A reasoning that is too short to be judged meets no criterion.

    Choice: criteria count alike, as yes and no: a model's own number between them is not comparable between questions.
        Unclear is unknown and not half a point, else hiding what was seen would pay.
    """

    name: ClassVar = "judge"

    @dataclass(frozen=True)
    class Config(JudgeTerm.Config):
        """Who is asked what."""

        judge: Annotated[Component, Slot("judging.endpoint.EndpointJudge")] = field(kw_only=True)
        """`judging.endpoint.EndpointJudge`, with its address, model, key, budget and pace. The budget is that of one
        run (specialty) each time it is started, over all its devices."""
        rubric: Annotated[str, Checked(rubric_faults)] = "reasons"
        """A name in configs/rubrics, or the path of a .yaml."""
        limit_s: Annotated[float, above(0)] = 600.0
        """Seconds after which a step asks no further; what is under way may take the judge's `timeout_s` more. What has
        not come then is unknown."""

    def __init__(self, config: Config) -> None:
        """Ask nobody yet."""
        super().__init__(config)
        self.unanswered: set[str] = set()
        self.noted = 0  # of them, in the file
        self.file: Path | None = None
        self.share = (0, 1)
        self.is_rehearsed, self.trouble = False, ""

    @cached_property
    def rubric(self) -> Rubric:
        """What is asked."""
        return load_rubric(self.config.rubric)

    @cached_property
    def judge(self) -> EndpointJudge:
        """Who is asked.

        Raises:
            UnusableError: the environment holds no key where the settings say.
        """
        judge = build(self.config.judge)
        judge.client.budget.keep_to(*self.share)
        return judge

    @property
    @override
    def identity(self) -> Mapping[str, Any]:
        told = sha256(json.dumps(asdict(self.rubric), sort_keys=True).encode()).hexdigest()
        asked = {"rubric": self.rubric.name, "rubric_sha256": told, "frame": VERSION}
        return {**identity_of(config_of(self.config.judge)), **asked}

    @override
    def check(self) -> None:
        build(self.config.judge)  # takes the key

    @override
    def begin(self, folder: Path, rank: int, ranks: int) -> None:
        """Read what got no reply before; errors as of `artifacts.manifest.get_text`."""
        self.file, self.share = folder / UNANSWERED.format(rank=rank), (rank, ranks)
        self.unanswered = set(json.loads(get_text(self.file))) if self.file.exists() else set()
        self.noted = len(self.unanswered)

    @override
    def rehearse(self) -> None:
        self.is_rehearsed = True

    @override
    def plan(self, completions: int) -> str:
        c, most = config_of(self.config.judge), completions * len(self.rubric.groups)
        money = f", max_cost={c.max_cost:g}" if c.max_cost else ""
        budget = f"within max_requests={c.max_requests}, max_tokens={c.max_tokens}{money} of each run"
        return f"judge: at most {most} requests to {c.model} at {c.base_url}, and those of cards, {budget}"

    @override
    def scores(self, judged: Sequence[Judged]) -> Sequence[float | None]:
        found = super().scores(judged)
        self.note_unanswered()
        return found

    @override
    def grades(self, judged: Sequence[Judged]) -> Sequence[float]:
        if self.is_rehearsed or not judged:
            return [0.5] * len(judged)
        looks = any(one.looks for one in self.rubric.criteria)
        examples = {one.example.question_id: one.example for one in judged}
        opened = {name: with_pictures(example) if looks else example for name, example in examples.items()}
        asked = [list(self.asked(one, opened[one.example.question_id])) for one in judged]
        said = self.replies([one for own in asked for one in own])
        return [grade(self.rubric, own, said) for own in asked]

    def asked(self, judged: Judged, example: Example) -> Sequence[Asked]:
        """What is asked about one completion."""
        item = Answer(judged.text, (), judged.n_tokens, judged.truncated).prediction(example)
        return list(asked_about(self.rubric, self.judge.identity, item, example))

    def replies(self, asked: Sequence[Asked]) -> dict[str, Reply]:
        """Key of a request -> its reply, of those that have one; notes the others.

        Raises:
            JudgeError: nobody answers as things are configured.
        """
        requests = {one.request.key: one.request for one in asked}
        end = time.monotonic() + self.config.limit_s
        waiting = [request for key, request in requests.items() if key not in self.unanswered]
        found, self.trouble = self.judge.heard(waiting, lambda: time.monotonic() > end)
        said = {request.key: reply for request, reply in found}
        self.unanswered |= set(requests) - set(said)
        return said

    def note_unanswered(self) -> None:
        """Keep what got no reply, now that its step is taken: taken again, it must get none again."""
        if self.file is not None and len(self.unanswered) > self.noted:
            put_text(self.file, json.dumps(sorted(self.unanswered)) + "\n")
            self.noted = len(self.unanswered)

    @override
    def why_unknown(self) -> str:
        return self.trouble or f"do the replies of {self.config.judge.init_args['model']} fit the rubric's form?"


def with_pictures(example: Example) -> Example:
    """The question with its pictures opened, so that each is read once and not for every completion."""
    return replace(example, images=tuple(map(load_image, example.images)))


def grade(rubric: Rubric, asked: Sequence[Asked], said: Mapping[str, Reply]) -> float:
    """The share of a rubric's criteria that are met; unknown where one is not decided."""
    if not asked:
        return 0.0
    found: list[bool | None] = []
    for one in asked:
        reply = said.get(one.request.key)
        found += [None] if reply is None else verdicts(rubric, one.group, reply.text).values()
    return UNKNOWN if None in found else math.fsum(found) / len(found)
