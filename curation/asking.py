"""Put requests to a teacher: what is known is not asked again, what comes is kept first and read then."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

from tqdm import tqdm

from curation.replies import Replies
from curation.teachers import RETRIED, Heard, Reply, Request, Teacher
from experiment.interrupts import deferred


class UnfinishedError(RuntimeError):
    """Some requests have no reply yet; what has come is kept, and the same command asks for the rest."""


def ask(teacher: Teacher, requests: Sequence[Request], replies: Replies, what: str) -> list[Reply]:
    """The reply to each request.

    Args:
        teacher: who is asked.
        requests: equal ones are asked once.
        replies: what is known already; takes what comes.
        what: names this part of the work in the progress bar.

    Returns:
        One reply per request, unusable ones with their fault.

    Raises:
        UnfinishedError: the teacher stopped answering, or the budget is spent.
        TeacherError: it cannot be used at all.
        KeyboardInterrupt: after a signal, once the replies that were under way are kept.
    """
    keys = [teacher.key(request) for request in requests]
    found: dict[str, Reply] = {}
    for key in dict.fromkeys(keys):
        known = replies.get(key)
        if known is not None:
            found[key] = teacher.read(*known)
    missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in found}
    if missing:
        fetch(teacher, missing, replies, found, what)
    return [found[key] for key in keys]


def fetch(teacher: Teacher, missing: dict[str, Request], replies: Replies, found: dict[str, Reply], what: str) -> None:
    """Ask for what is missing; arguments and errors as of `ask`.

    Replies that look like an outage ("malformed", "wrong_model") are believed only when the teacher answers
    well again, or the work ends without giving up: a proxy's error pages leave no trace.
    """
    asked = {id(request): key for key, request in missing.items()}
    troubles: Counter[str] = Counter()
    doubted: list[tuple[str, Heard]] = []
    in_a_row = 0

    def keep(key: str, heard: Heard) -> None:
        seen = {"row": heard.request.row, "teacher": dict(teacher.identity), "prompt": teacher.prompt(heard.request)}
        replies.put(key, heard.status, heard.body or b"", {**seen, "draw": heard.request.draw})
        found[key] = teacher.read(heard.status, heard.body or b"")

    with deferred() as stop_wanted, bar(what, len(missing)) as progress:

        def take(heard: Heard) -> bool:
            nonlocal in_a_row
            key = asked[id(heard.request)]
            fault = heard.trouble or teacher.read(heard.status, heard.body or b"").fault
            if heard.trouble:
                troubles[heard.trouble] += 1
                in_a_row += 1
            elif fault in RETRIED:
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
    if in_a_row < teacher.give_up_after:
        for key, heard in doubted:
            keep(key, heard)
    else:
        troubles.update(teacher.read(heard.status, heard.body or b"").fault for _, heard in doubted)
    left = [key for key in missing if key not in found]
    if left:
        reasons = "; ".join(f"{reason} ({count})" for reason, count in troubles.most_common(5))
        raise UnfinishedError(
            f"{what}: {len(missing) - len(left)} of {len(missing)} replies came now and are kept, {len(left)} are "
            f"missing: {reasons or 'not asked'}. Nothing is lost; run the same command again to go on"
        )


def bar(what: str, total: int) -> tqdm:
    """Progress with the time that is left: a bar for a terminal, a line now and then for a log file."""
    return tqdm(total=total, desc=what, unit="reply", mininterval=0.5 if sys.stderr.isatty() else 15.0)
