"""Event files that are written aside: a board stands whole or not at all, and what was there before is known."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from artifacts.durable import flush, named
from artifacts.interrupts import deferred
from artifacts.manifest import entry_of, read_manifest, standing, write_manifest

EVENTS = "events.out.tfevents.*"
BOARD = "board.manifest.json"
"""Manifest of a folder's board; `made_from` says of what."""
EARLIER = "earlier"
"""Folder of a run for curves that were begun before it was started afresh."""


def board_stands(folder: Path, made_from: str) -> bool:
    """Whether a folder's board is the one of these things.

    Args:
        folder: the board's.
        made_from: whatever tells the things from others, such as the hash of a report.

    Raises:
        DamagedError: it is, and its file is not as it was written.
    """
    if not (folder / BOARD).is_file():
        return False
    remedy = f"delete {folder / BOARD}, and the same command draws the board anew"
    return (
        read_manifest(folder / BOARD, remedy).get("made_from") == made_from
        and standing(folder / BOARD, remedy) is not None
    )


@contextmanager
def board(folder: Path, made_from: str) -> Iterator[SummaryWriter]:
    """Write a board; it takes the place of an earlier one when the block ends without an error.

    A signal waits for the end of the block, as the writer has a thread of its own.

    Args:
        folder: gets one event file, and its manifest.
        made_from: as of `board_stands`.

    Yields:
        What figures and scalars are added to.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".board.{os.getpid()}.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with named(folder), deferred():
            with SummaryWriter(str(aside)) as writer:
                yield writer
            (written,) = aside.glob(EVENTS)
            flush(written)
            (folder / BOARD).unlink(missing_ok=True)  # from here on no board counts as standing
            for old in folder.glob(EVENTS):
                old.unlink()
            os.replace(written, folder / written.name)
            write_manifest(folder / BOARD, {written.name: entry_of(folder / written.name)}, made_from=made_from)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def set_aside(run: Path) -> None:
    """Keep what a run that starts afresh had drawn, under names that TensorBoard does not take for its curves."""
    for old in run.glob(EVENTS):
        place = run / EARLIER / old.name.replace("tfevents", "set_aside")
        place.parent.mkdir(exist_ok=True)
        os.replace(old, place)
