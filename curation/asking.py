"""Put requests to a teacher: what is known is not asked again, what comes is kept first and read then."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence

from tqdm import tqdm

from artifacts.interrupts import deferred
from curation.replies import Replies
from curation.teachers import DOUBTED, Heard, Reply, Request, Teacher, beginning


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
        TeacherError: it cannot be used at all.
        KeyboardInterrupt: after a signal, once the replies that were under way are kept.
    """
    keys = [teacher.key(request) for request in requests]
    missing = {key: request for key, request in dict(zip(keys, requests, strict=True)).items() if not replies.get(key)}
    if missing:
        fetch(teacher, missing, replies, what)
    return (teacher.read(*replies.held(key)) for key in keys)


def fetch(teacher: Teacher, missing: dict[str, Request], replies: Replies, what: str) -> None:
    """Ask for what is missing; arguments and errors as of `ask`.

    Replies that look like an outage (`DOUBTED`) are believed only when the teacher answers well again, or the work
    ends without giving up: a proxy's error pages, or a parameter that the endpoint does not know, leave no trace.
    """
    left = len(missing)
    asked = {id(request): key for key, request in missing.items()}
    troubles: Counter[str] = Counter()
    doubted: list[tuple[str, Heard]] = []
    in_a_row = 0

    def keep(key: str, heard: Heard) -> None:
        nonlocal left
        seen = {"row": heard.request.row, "teacher": dict(teacher.identity), "prompt": teacher.prompt(heard.request)}
        replies.put(key, heard.status, heard.body or b"", {**seen, "draw": heard.request.draw})
        left -= 1

    with deferred() as stop_wanted, bar(what, len(missing)) as progress:

        def take(heard: Heard | None) -> bool:
            nonlocal in_a_row
            if heard is None:
                return not stop_wanted()
            key = asked[id(heard.request)]
            fault = heard.trouble or teacher.read(heard.status, heard.body or b"").fault
            if heard.trouble:
                troubles[heard.trouble] += 1
                in_a_row += 1
            elif fault in DOUBTED:
                doubted.append((key, heard))
                in_a_row += 1
            else:
                keep(key, heard)
                while doubted:
                    keep(*doubted.pop())
                in_a_row = 0
                progress.update()
            return not stop_wanted() and in_a_row < teacher.give_up_after

        teacher.answer(list(missing.values()), take)
    for key, heard in doubted:
        if in_a_row < teacher.give_up_after:
            keep(key, heard)
        else:
            troubles[f"HTTP {heard.status} {beginning(heard.body or b'')!r}"] += 1
    if left:
        reasons = "; ".join(f"{reason} ({count})" for reason, count in troubles.most_common(5))
        raise UnfinishedError(
            f"{what}: {len(missing) - left} of {len(missing)} replies came now and are kept, {left} are "
            f"missing: {reasons or 'not asked'}. Nothing is lost; run the same command again to go on"
        )


def bar(what: str, total: int) -> tqdm:
    """Progress with the time that is left: a bar for a terminal, a line now and then for a log file."""
    return tqdm(total=total, desc=what, unit="reply", mininterval=0.5 if sys.stderr.isatty() else 15.0)
