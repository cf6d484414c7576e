"""Files that can be read to their end: no pipes, devices, folders or links to themselves, which hang or end nowhere."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def present(path: Path) -> bool:
    """Whether something of that name is there, a dangling link included: whoever reads it is told what it is."""
    return os.path.lexists(path)


def irregular(path: Path) -> str:
    """What a path is, where it is there and no regular file; empty where it is one, or where nothing is there."""
    try:
        return kind(os.stat(path).st_mode)
    except OSError:
        pass
    if not os.path.islink(path):
        return ""
    try:
        os.path.realpath(path, strict=True)
    except FileNotFoundError:
        return f"a symbolic link to {os.readlink(path)!r}, where nothing is"
    except OSError:  # too many levels
        return "a symbolic link that leads back to itself"
    return ""


def kind(mode: int) -> str:
    """The name of a mode that is not a regular file's, else nothing."""
    return "" if stat.S_ISREG(mode) else next((name for is_kind, name in KINDS if is_kind(mode)), "no regular file")


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; nothing else is waited for.

    Raises:
        OSError: it is none, or cannot be opened.
    """
    if found := irregular(path):
        raise OSError(f"is {found}, expected a regular file")
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        if found := kind(os.fstat(handle).st_mode):  # it was put in the file's place just now
            raise OSError(f"is {found}, expected a regular file")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise
