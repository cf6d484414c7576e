"""Replies on disk: one JSON line each, with all that scoring needs, so that a report asks neither model nor data."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

from artifacts.durable import named, write_text
from datamodules.json_rows import load_json
from judging.cases import DIMENSIONS, SIDES, TAGS, Case

FORMAT = "judging/1"
ASKED, REPLIES = "asked.json", "replies.jsonl"
Order = Literal["given", "swapped"]


class RecordError(ValueError):
    """A folder of replies that cannot be used as it is."""


@dataclass(frozen=True)
class Line:
    """One reply.

    Attributes:
        key: of the request.
        organ: of the case.
        question_id: of the case.
        cluster: what goes together with it.
        order: in which the answers were shown; of single answers, `given`.
        part: 0, or in `score` mode which answer was graded.
        truth: dimension -> side, in the order given; on the others the answers are equal.
        lengths: characters of both answers, in the order given.
        tags: of the case.
        reply: as it came.
        truncated: it reached its limit.
    """

    key: str
    organ: str
    question_id: str
    cluster: str
    order: Order
    part: int
    truth: Mapping[str, str]
    lengths: tuple[int, int]
    tags: Mapping[str, str]
    reply: str
    truncated: bool


def line_of(case: Case, key: str, order: Order, part: int, reply: str, truncated: bool) -> Line:
    """A reply beside what is known of its case."""
    lengths = (len(case.answers[0]), len(case.answers[1]))
    about = (case.organ, case.question_id, case.cluster)
    return Line(key, *about, order, part, dict(case.truth), lengths, dict(case.tags), reply, truncated)


def checked_line(held: Any) -> Line:
    """A line of the file as a reply.

    Raises:
        ValueError: it is none.
    """
    line = Line(**{**held, "lengths": tuple(held["lengths"])})
    sound = (
        bool(line.truth)
        and set(line.truth) <= set(DIMENSIONS)
        and set(line.truth.values()) <= set(SIDES)
        and line.order in ("given", "swapped")
        and line.part in (0, 1)
        and len(line.lengths) == 2
        and set(line.tags) <= set(TAGS)
        and all(isinstance(text, str) for text in (line.key, line.organ, line.question_id, line.cluster, line.reply))
    )
    if not sound:
        raise ValueError("fields are not as they were written")
    return line


class Keyed(Protocol):
    """A dataclass that is kept as a line of JSON."""

    @property
    def key(self) -> str:
        """Of the request."""


Held = TypeVar("Held", bound=Keyed)


class Record(Generic[Held]):
    """The folder of one judge's replies."""

    def __init__(self, folder: Path, check: Callable[[Any], Held] = checked_line) -> None:
        """Name the folder; nothing is read yet.

        Args:
            folder: of the replies.
            check: makes a reply of a line's JSON; raises where it is none.
        """
        self.folder, self.line = folder, check

    def check(self, asked: Mapping[str, Any]) -> None:
        """See that the folder is one of these questions, or new.

        Args:
            asked: all that the replies follow from, as JSON.

        Raises:
            RecordError: the folder holds replies to something else; names what differs.
        """
        replies = self.folder / REPLIES
        if not (self.folder / ASKED).exists():
            if replies.exists() and replies.stat().st_size:
                raise RecordError(f"{self.folder}: holds replies, and no {ASKED} says to what; choose another out")
            return
        held = self.asked()
        wanted = json.loads(json.dumps({"format": FORMAT, **asked}))
        differing = sorted(key for key in {*held, *wanted} if held.get(key) != wanted.get(key))
        if differing:
            told = "; ".join(f"{key}: {short(held.get(key))} there, {short(wanted.get(key))} now" for key in differing)
            raise RecordError(f"{self.folder}: was made with other settings ({told}); choose another out")

    def asked(self) -> dict[str, Any]:
        """What the replies follow from.

        Raises:
            RecordError: the file is missing, damaged, or of another format.
        """
        path = self.folder / ASKED
        try:
            held = load_json(path.read_bytes())
        except (OSError, ValueError) as error:
            raise RecordError(f"{path}: cannot be read ({error}); is {self.folder} the folder of a judge?") from error
        if not isinstance(held, dict) or held.get("format") != FORMAT:
            raise RecordError(f"{path}: is of another format, expected {FORMAT}")
        return held

    def lines(self) -> list[Held]:
        """The replies that are there; a last line that was cut off is none.

        Raises:
            RecordError: another line is damaged, or a request has two replies.
        """
        path = self.folder / REPLIES
        if not path.exists():
            return []
        whole, _, _ = path.read_bytes().rpartition(b"\n")
        found: dict[str, Held] = {}
        for number, raw in enumerate(whole.split(b"\n") if whole else (), 1):
            try:
                line = self.line(load_json(raw))
            except (ValueError, TypeError, LookupError, AttributeError) as error:
                raise RecordError(f"{path}, line {number}: is no reply ({error}); take it out to ask again") from error
            if line.key in found:
                raise RecordError(f"{path}, line {number}: a second reply to one request; take one of the two out")
            found[line.key] = line
        return list(found.values())

    @contextmanager
    def writer(self, asked: Mapping[str, Any]) -> Iterator[Callable[[Held], None]]:
        """Make the folder one of these questions, and give what keeps a reply.

        A process that is killed later loses no reply that it was given. A last line that was cut off, as by a power
        failure, is taken out first.

        Args:
            asked: as of `check`.

        Raises:
            RecordError: as `check`, or another process writes here.
            OSError: the disk is full or the folder cannot be written.
        """
        self.check(asked)  # before anything is made in a folder that is something else
        path = self.folder / REPLIES
        with named(path):
            self.folder.mkdir(parents=True, exist_ok=True)
        with named(path), open(path, "ab+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                reason = "another process is judging into it; wait, or choose another out"
                raise RecordError(f"{self.folder}: {reason}") from error
            self.check(asked)  # again: another process may have begun before this one held the lock
            if not (self.folder / ASKED).exists():
                content = json.dumps({"format": FORMAT, **asked}, indent=1, ensure_ascii=False)
                write_text(self.folder / ASKED, content + "\n")
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)

            def keep(line: Held) -> None:
                file.write(json.dumps(asdict(line)).encode() + b"\n")
                file.flush()

            try:
                yield keep
            finally:
                os.fsync(file.fileno())


def short(value: Any, length: int = 60) -> str:
    """A value for a message."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= length else f"{text[:length]}…"
