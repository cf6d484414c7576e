"""Put requests to a teacher: what is known is not asked again, what comes is kept first and read then."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence

from tqdm import tqdm

from artifacts.interrupts import deferred
from curation.replies import Replies
from curation.teachers import DOUBTED, Heard, Reply, Request, Teacher, TeacherError


class UnfinishedError(RuntimeError):
    """Some requests have no reply yet; what has come is kept, and the same command asks for the rest."""


def ask(teacher: Teacher, requests: Sequence[Request], replies: Replies, what: str) -> Iterator[Reply]:
    """The reply to each request.

    Args:
        teacher: who is asked.
        requests: equal ones are asked once.
        replies: what is known already; takes what comes.
        what: names this part of the work in the progress bar.

    Returns:
        One reply per request, unusable ones with their fault; read one by one, since all may be too many to hold.

    Raises:
        UnfinishedError: the teacher stopped answering, or the budget is spent.
        TeacherError: it cannot be used at all, or answers as another model.
        KeyboardInterrupt: after a signal, once the replies that were under way are kept.
    """
    keys = [teacher.key(request) for request in requests]
    missing = {key: request for key, request in dict(zip(keys, requests, strict=True)).items() if not replies.get(key)}
    if missing:
        fetch(teacher, missing, replies, what)
    return (teacher.read(*replies.held(key)) for key in keys)


def fetch(teacher: Teacher, missing: dict[str, Request], replies: Replies, what: str) -> None:
    """Ask for what is missing, one request before the many; arguments and errors as of `ask`."""
    intake = Intake(teacher, missing, replies)
    with deferred() as stop_wanted, bar(what, len(missing)) as progress:

        def take(heard: Heard | None) -> bool:
            if heard is not None and intake.take(heard):
                progress.update()
            return not stop_wanted() and not intake.gives_up

        waiting = list(missing.values())
        # One at a time until one is answered: a wrong model or parameter costs a request, not as many as run at once.
        while waiting and not (intake.kept or intake.troubles or intake.gives_up or stop_wanted()):
            teacher.answer([waiting.pop(0)], take)
            check_model(teacher, intake.doubted)
        if waiting and intake.kept and not stop_wanted():
            teacher.answer(waiting, take)
    intake.settle()
    if left := len(missing) - intake.kept:
        reasons = "; ".join(f"{reason} ({count})" for reason, count in intake.troubles.most_common(5))
        raise UnfinishedError(
            f"{what}: {intake.kept} of {len(missing)} replies came now and are kept, {left} are "
            f"missing: {reasons or 'not asked'}. Nothing is lost; run the same command again to go on"
        )


class Intake:
    """Keeps what comes.

    Replies that look like an outage (`DOUBTED`) are believed only when the teacher answers well again, or the work
    ends without giving up: a proxy's error pages, or a parameter that the endpoint does not know, leave no trace.

    Attributes:
        kept: replies.
        troubles: why there is none -> how often.
        doubted: replies that are not believed yet, with their keys.
    """

    def __init__(self, teacher: Teacher, missing: dict[str, Request], replies: Replies) -> None:
        """Nothing has come yet."""
        self.teacher, self.replies = teacher, replies
        self.asked = {id(request): key for key, request in missing.items()}
        self.kept, self.in_a_row = 0, 0
        self.troubles: Counter[str] = Counter()
        self.doubted: list[tuple[str, Heard]] = []

    @property
    def gives_up(self) -> bool:
        """Whether too many requests in a row had no usable reply."""
        return self.in_a_row >= self.teacher.give_up_after

    def take(self, heard: Heard) -> bool:
        """Keep a reply, or note why not; whether it was one to believe."""
        key = self.asked[id(heard.request)]
        self.in_a_row += 1
        if heard.trouble:
            self.troubles[heard.trouble] += 1
            return False
        if self.teacher.read(heard.status, heard.body or b"").fault in DOUBTED:
            self.doubted.append((key, heard))
            return False
        self.keep(key, heard)
        while self.doubted:
            self.keep(*self.doubted.pop())
        self.in_a_row = 0
        return True

    def keep(self, key: str, heard: Heard) -> None:
        """Write a reply down."""
        teacher = self.teacher
        seen = {"row": heard.request.row, "teacher": dict(teacher.identity), "prompt": teacher.prompt(heard.request)}
        self.replies.put(key, heard.status, heard.body or b"", {**seen, "draw": heard.request.draw})
        self.kept += 1

    def settle(self) -> None:
        """Believe what is doubted, or count it among the troubles."""
        believed = not self.gives_up and bool(self.kept or not self.troubles)
        for key, heard in self.doubted:
            if believed:
                self.keep(key, heard)
            else:
                self.troubles[self.teacher.trouble_with(heard)] += 1


def check_model(teacher: Teacher, doubted: list[tuple[str, Heard]]) -> None:
    """End the work where the only answers are another model's.

    Raises:
        TeacherError: names both models.
    """
    for _, heard in doubted:
        if teacher.read(heard.status, heard.body or b"").fault == "wrong_model":
            raise TeacherError(teacher.trouble_with(heard))


def bar(what: str, total: int) -> tqdm:
    """Progress with the time that is left: a bar for a terminal, a line now and then for a log file."""
    return tqdm(total=total, desc=what, unit="reply", mininterval=0.5 if sys.stderr.isatty() else 15.0)
