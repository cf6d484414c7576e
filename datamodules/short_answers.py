"""What SLAKE, VQA-RAD and PathVQA share: a question, a picture and a short answer, often yes or no."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from typing_extensions import override

from datamodules.batch import Example, ImageSource
from datamodules.embedded import EmbeddedPicture, HubPicture
from datamodules.released import ReleasedSet
from datamodules.rows import Record
from datamodules.spelling import yes_or_no

YES_NO = ("yes", "no")
CLOSED_OTHER = "questions marked CLOSED whose answer is neither yes nor no"


class ShortAnswerSet(ReleasedSet):
    """Free answers; a yes or a no becomes a question with two options, everything else an open one.

    Case, width, an end mark and invisible characters do not make a yes another answer.

    Choice: an answer that the release calls CLOSED but that is neither yes nor no ("left", "CT") has no options in the
        release. It is open here and keeps the tag `answer_type`, rather than being given options of our making; where
        open questions are left out, it is counted under a name of its own.
    """

    @dataclass(frozen=True)
    class Config(ReleasedSet.Config):
        """Which questions."""

        questions: Literal["yes_no", "open", "all"] = "yes_no"
        """Those with options (what rewards and scores by letter need), those without, or both."""

    @abstractmethod
    def tags(self, record: Record) -> Mapping[str, str]:
        """Attributes of a row."""

    def question_id(self, record: Record) -> str:
        """Unique within the set; where the release has none, the place of the row."""
        return f"{type(self).__name__.lower()}-{Path(record.file).stem.rpartition(':')[2]}-{record.row}"

    def patient(self, record: Record, source: ImageSource) -> str:
        """The picture stands for the patient, whom no release names."""
        return source.sha256 if isinstance(source, EmbeddedPicture | HubPicture) else record.text("image", "img_name")

    @property
    @override
    def subset(self) -> str:
        return f"{type(self).__name__} {self.config.questions}"

    @override
    def example(self, record: Record) -> Example:
        answer = record.text("answer")
        said = yes_or_no(answer)
        options, kind = (YES_NO, "yes_no") if said else ((), "open")
        if self.config.questions not in (kind, "all"):
            closed = not said and record.text("answer_type", default="").upper() == "CLOSED"
            raise self.not_asked(CLOSED_OTHER if closed else f"{kind} questions")
        source = self.picture(record, "image", "img_name")
        return Example(
            patient_id=self.patient(record, source),
            images=(source,),
            question=record.text("question"),
            options=options,
            answer=said or answer,
            question_id=self.question_id(record),
            tags={"question_type": kind, **self.tags(record)},
        )
