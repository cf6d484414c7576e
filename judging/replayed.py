"""Replies that the release's own scripts have written: scored and compared here, and nobody is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import override

from datamodules.assets import file_hash
from datamodules.batch import BadExampleError
from datamodules.readers import read_rows
from datamodules.rows import Fault
from judging.cases import ORGANS, Case
from judging.judge import Judge, JudgeError, Reply, Request
from judging.messages import Mode
from judging.verdicts import released


class Replayed(Judge):
    """The file that the release's pipeline writes for all organs, `pair_<model>.jsonl`, before it reads the replies.

    As there, a case without a line has no verdict, of several lines the last that can be read counts, and lines of no
    case do not. It holds the order given alone.

    Source: Med-RewardBench, arXiv:2508.21430, released code at 9b9d806.
    """

    modes: ClassVar[Sequence[Mode]] = ("pair",)
    sees: ClassVar[bool] = False

    @dataclass(frozen=True)
    class Config:
        """Which file."""

        file: str
        """JSON lines with question_id, modality_type (the organ) and chosen_answer (the raw reply)."""

    def __init__(self, config: Config) -> None:
        """Keep the configuration; the file is read when it is first needed."""
        self.config = config
        self.answers: dict[str, tuple[str, str]] = {}

    @cached_property
    def said(self) -> dict[str, str]:
        """Case id -> its reply.

        Raises:
            JudgeError: a line cannot be used; names it.
        """
        path = Path(self.config.file)
        found: dict[str, str] = {}
        for record in read_rows(path, path.parent):
            if isinstance(record, Fault):
                raise JudgeError(f"file: {record}")
            reply = record.fields.get("chosen_answer")
            try:
                organ, name = record.text("modality_type"), record.text("question_id")
            except BadExampleError as error:
                raise JudgeError(f"file: {record.file}, row {record.row}: {error}") from error
            if organ not in ORGANS or not isinstance(reply, str):
                told = f"modality_type {organ!r} must be an organ and chosen_answer a text (the file before it is read)"
                raise JudgeError(f"file: {record.file}, row {record.row}: {told}")
            case_id = f"{organ}/{name}"
            if released(reply).verdicts or not released(found.get(case_id, "")).verdicts:
                found[case_id] = reply
        return found

    @property
    @override
    def identity(self) -> Mapping[str, Any]:
        path = Path(self.config.file)
        if not path.is_file():
            raise JudgeError(f"file: {self.config.file!r} is no file")
        _ = self.said  # a damaged file is told before anything is written
        return {"judge": "replayed", "file": path.name, "sha256": file_hash(path)}

    @override
    def study(self, cases: Sequence[Case]) -> None:
        self.answers = {case.case_id: case.answers for case in cases}

    @override
    def replies(self, requests: Sequence[Request]) -> Iterator[tuple[Request, Reply]]:
        if any(request.answers != self.answers[request.case_id] for request in requests):
            raise JudgeError("the file holds replies to the order given alone; say orders=given")
        for request in requests:
            yield request, Reply(self.said.get(request.case_id, ""))
