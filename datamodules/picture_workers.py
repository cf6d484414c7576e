"""Pictures that are decoded and preprocessed ahead, in other processes, in the order in which they will be used.

Which pictures a step gets does not depend on how far the workers have run ahead, nor on how many there are.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from datamodules.batch import BadExampleError, Batch, ImageSource

ReadPicture = Callable[[ImageSource], tuple[str, Any]]
"""Decodes and preprocesses one picture: its `image_key`, and what the model takes in its place."""

Pictures = tuple[tuple[Any, ...], ...]
"""For each example what `ReadPicture` makes of its pictures, in order."""

_CAN_ASK_WHO_SENT = hasattr(signal, "sigtimedwait")  # macOS has not: a SIGTERM sent to a worker ends it there
PARENTS = {signal.SIGINT, signal.SIGHUP} | ({signal.SIGTERM} if _CAN_ASK_WHO_SENT else set())
"""Signals that a terminal or a scheduler sends to every process of a job; the parent alone decides what they mean."""


def read_ahead(
    batch_of: Callable[[int], Batch], steps: range, read_picture: ReadPicture, num_workers: int
) -> Iterator[Pictures]:
    """The pictures of each step's examples, read by workers that run at most two steps ahead each.

    Args:
        batch_of: the batch of a step, a function of the step alone.
        steps: in order.
        read_picture: sent to the workers, so it must be light; see `ReadPicture`.
        num_workers: processes, at least 1. Each computes on one thread.

    Raises:
        BadExampleError: a picture cannot be used; raised where its step would have come, as if it were read here.
    """
    loader = DataLoader(
        StepPictures(batch_of, read_picture),
        batch_size=None,
        sampler=steps,
        num_workers=num_workers,
        collate_fn=unchanged,
        worker_init_fn=leave_with_parent,
        generator=torch.Generator(),  # seeds the workers; without it the draw would come from training's own stream
    )
    with blocked(PARENTS):
        iterator = iter(loader)
    try:
        for found in iterator:
            if isinstance(found, BadExampleError):
                raise found
            yield found
    finally:
        # An exception that struck while we waited holds the iterator in its traceback, and so its workers alive; torch
        # has no public name for ending them.
        iterator._shutdown_workers()
        for worker in iterator._workers:  # one that did not notice within torch's five seconds; it only reads
            worker.kill()


class StepPictures(Dataset):
    """The pictures of each step, as a map from steps."""

    def __init__(self, batch_of: Callable[[int], Batch], read_picture: ReadPicture) -> None:
        """Arguments as of `read_ahead`."""
        self.batch_of, self.read_picture = batch_of, read_picture

    def __getitem__(self, step: int) -> Pictures | BadExampleError:
        """Read each distinct picture once.

        Returns:
            The pictures, or the error that reading them raised: as a value, since torch would tell an exception of a
            worker with a traceback of its own.
        """
        examples = self.batch_of(step).examples
        try:
            sources = {id(source): source for example in examples for source in example.images}
            found = {key: self.read_picture(source) for key, source in sources.items()}
        except BadExampleError as error:
            return error
        return tuple(tuple(found[id(source)] for source in example.images) for example in examples)


def unchanged(found: Any) -> Any:
    """What a worker sends is a step already."""
    return found


@contextmanager
def blocked(signals: set[signal.Signals]) -> Iterator[None]:
    """Start processes that never notice these signals: they keep what is blocked when they are started."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_with_parent(worker: int) -> None:
    """Make this worker end with its parent, however that ends, and when its parent tells it to.

    torch's own watch needs up to five seconds, and a worker that cannot pass its last step on would never come to it.
    """
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        if not _CAN_ASK_WHO_SENT:
            time.sleep(1)
            continue
        sent = signal.sigtimedwait({signal.SIGTERM}, 1)
        if sent is not None and sent.si_pid == parent:
            break
    os._exit(0)
