"""Put requests to a model: what is known is not asked again, what comes is kept first and read then."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Generic

from tqdm import tqdm

from artifacts.interrupts import deferred
from endpoints.answerer import Answerer, Asked, Heard, UnusableError
from endpoints.reading import DOUBTED, Reply
from endpoints.replies import Replies


class UnfinishedError(RuntimeError):
    """Some requests have no reply yet; what has come is kept, and the same command asks for the rest."""


def ask(
    answerer: Answerer[Asked],
    requests: Sequence[Asked],
    replies: Replies,
    what: str,
    stop: Callable[[], bool] | None = None,
) -> Iterator[Reply]:
    """The reply to each request.

    Args:
        answerer: who is asked.
        requests: equal ones are asked once.
        replies: what is known already; takes what comes.
        what: names this part of the work in the progress bar, and in messages.
        stop: asked every now and then whether to ask no further. None stops after a signal and shows a bar; work that
            hears signals by itself, shows its own progress and comes back step by step has a rule of its own.

    Returns:
        One reply per request, unusable ones with their fault; read one by one, since all may be too many to hold.

    Raises:
        UnfinishedError: nobody answers any more, or the budget is spent.
        UnusableError: it cannot be used at all, or answers as another model.
        KeyboardInterrupt: after a signal, once the replies that were under way are kept.
    """
    keys = [answerer.key(request) for request in requests]
    distinct = dict(zip(keys, requests, strict=True))
    missing = {key: request for key, request in distinct.items() if not replies.get(key)}
    if missing:
        known = [key for key in distinct if key not in missing]
        fetch(answerer, missing, Intake(answerer, missing, replies, known), what, stop)
    return (answerer.read(*replies.held(key)) for key in keys)


def fetch(
    answerer: Answerer[Asked],
    missing: dict[str, Asked],
    intake: Intake[Asked],
    what: str,
    stop: Callable[[], bool] | None = None,
) -> None:
    """Ask for what is missing, one request before the many; `intake` keeps it. The rest as of `ask`."""
    heeding = deferred() if stop is None else nullcontext(stop)
    with heeding as stop_wanted, bar(what, len(missing), shown=stop is None) as progress:

        def take(heard: Heard | None) -> bool:
            if heard is not None and intake.take(heard):
                progress.update()
            return not stop_wanted() and not intake.gives_up

        # One at a time until one is answered: a wrong model or parameter costs a request, not as many as run at once.
        # Not where asking comes back step by step: there a failure of the first would leave all others unasked.
        waiting, known = list(missing.values()), stop is not None and answerer.is_proven
        while waiting and not (known or intake.kept or intake.troubles or intake.gives_up or stop_wanted()):
            answerer.answer([waiting.pop(0)], take)
            check_model(answerer, intake.doubted)
        if waiting and (known or intake.kept) and not stop_wanted():
            answerer.answer(waiting, take)
    intake.settle()
    if left := len(missing) - intake.kept:
        reasons = "; ".join(f"{reason} ({count})" for reason, count in intake.troubles.most_common(5))
        raise UnfinishedError(
            f"{what}: {intake.kept} of {len(missing)} replies came now and are kept, {left} are "
            f"missing: {reasons or 'not asked'}. Nothing is lost; run the same command again to go on"
        )


class Intake(Generic[Asked]):
    """Keeps what comes.

    Replies that look like an outage (`DOUBTED`) are believed only when the model answers well again, or the work
    ends without giving up: a proxy's error pages, or a parameter that the endpoint does not know, leave no trace.

    Attributes:
        kept: replies.
        troubles: why there is none -> how often.
        doubted: replies that are not believed yet, with their keys.
    """

    def __init__(
        self, answerer: Answerer[Asked], missing: dict[str, Asked], replies: Replies, known: Sequence[str] = ()
    ) -> None:
        """Nothing has come yet.

        Args:
            answerer: who is asked.
            missing: key -> request.
            replies: takes what comes.
            known: keys of the same work whose replies are kept already.
        """
        self.answerer, self.replies, self.known = answerer, replies, known
        self.asked = {id(request): key for key, request in missing.items()}
        self.kept, self.in_a_row = 0, 0
        self.troubles: Counter[str] = Counter()
        self.doubted: list[tuple[str, Heard]] = []

    @property
    def gives_up(self) -> bool:
        """Whether too many requests in a row had no usable reply."""
        return self.in_a_row >= self.answerer.give_up_after

    def take(self, heard: Heard) -> bool:
        """Keep a reply, or note why not; whether it was one to believe."""
        key = self.asked[id(heard.request)]
        self.in_a_row += 1
        if heard.trouble:
            self.troubles[heard.trouble] += 1
            return False
        if self.answerer.read(heard.status, heard.body or b"").fault in DOUBTED:
            self.doubted.append((key, heard))
            return False
        self.keep(key, heard)
        self.answerer.is_proven = True
        self.believe()
        self.in_a_row = 0
        return True

    def keep(self, key: str, heard: Heard) -> None:
        """Write a reply down."""
        self.replies.put(key, heard.status, heard.body or b"", dict(self.answerer.note(heard.request)))
        self.kept += 1

    def settle(self) -> None:
        """Believe what is doubted, or count it among the troubles."""
        proven = not self.answerer.needs_proof or self.answers_others()
        if self.doubted and not self.gives_up and (self.kept or not self.troubles) and proven:
            self.believe()
        self.troubles.update(self.answerer.trouble_with(heard) for _, heard in self.doubted)

    def answers_others(self) -> bool:
        """Whether the model is known to answer: it did so in this program, or to something of the same work before."""
        known = (self.answerer.read(*self.replies.held(key)).fault for key in self.known)
        return self.answerer.is_proven or any(fault not in DOUBTED for fault in known)

    def believe(self) -> None:
        """Keep what was doubted, but for what is never kept."""
        for key, heard in self.doubted:
            if self.answerer.read(heard.status, heard.body or b"").fault in self.answerer.never_kept:
                self.troubles[self.answerer.trouble_with(heard)] += 1
            else:
                self.keep(key, heard)
        self.doubted.clear()


def check_model(answerer: Answerer[Asked], doubted: Sequence[tuple[str, Heard[Asked]]]) -> None:
    """End the work where the only answers are another model's.

    Raises:
        UnusableError: names both models.
    """
    for _, heard in doubted:
        if answerer.read(heard.status, heard.body or b"").fault == "wrong_model":
            raise UnusableError(answerer.trouble_with(heard))


def bar(what: str, total: int, *, shown: bool = True) -> tqdm:
    """Progress with the time that is left: a bar for a terminal, a line now and then for a log file."""
    every = 0.5 if sys.stderr.isatty() else 15.0
    return tqdm(total=total, desc=what, unit="reply", mininterval=every, disable=not shown)
