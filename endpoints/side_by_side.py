"""Work that waits for somebody else, several pieces at once, handed over one by one to the thread that asked for it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def side_by_side(
    work: Callable[[Given, threading.Event], Made],
    given: Sequence[Given],
    take: Callable[[Made | None], bool],
    at_once: int,
) -> None:
    """Do pieces of work in threads; what is under way when it is to stop, or when a piece fails, is still handed over.

    Args:
        work: on one piece; told by the event that nothing further is wanted.
        given: the pieces.
        take: called here with what each piece made, in any order, and with None while nothing comes; False ends it.
        at_once: threads.

    Raises:
        BaseException: the first that a piece raised, once the others under way are handed over.
    """
    waiting, lock, done, halt = iter(given), threading.Lock(), queue.SimpleQueue(), threading.Event()

    def run() -> None:
        try:
            while not halt.is_set():
                with lock:
                    try:
                        piece = next(waiting)
                    except StopIteration:
                        break
                done.put((work(piece, halt), None))
        except BaseException as error:
            done.put((None, error))
        done.put(None)

    for _ in range(at_once):
        threading.Thread(target=run, daemon=True).start()
    alive, errors = at_once, []
    try:
        while alive:
            made, error = None, None
            with suppress(queue.Empty):
                found = done.get(timeout=0.2)
                alive -= found is None
                made, error = found or (None, None)
            if error is not None:  # what is under way elsewhere still comes
                errors.append(error)
                halt.set()
            elif not take(made):
                halt.set()
    finally:
        halt.set()
    if errors:
        raise errors[0]
