"""What a process does beside its work: programs that it starts, and modules of strangers that it imports."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty",
            "pty.spawn", "webbrowser.open", "os.startfile")  # fmt: skip
"""Audit events of a program that is started."""


def watch(log: Path, strangers: Collection[str], allowed: Collection[str] = ()) -> None:
    """Note in a file every program that this process starts, and every stranger that it imports.

    Args:
        log: a line for each; made when the first one comes.
        strangers: top-level modules that nothing here has a reason to import.
        allowed: first words of programs that may be started, such as git.
    """

    def note(text: str) -> None:
        with open(log, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{text}\n")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in PROGRAMS:
            word = str(arguments[0]) if arguments else ""
            if not any(word == name or word.endswith(f"/{name}") for name in allowed):
                note(f"{event} {word[:200]}")
        elif event == "import" and str(arguments[0]).partition(".")[0] in strangers:
            note(f"import {arguments[0]}")

    sys.addaudithook(hook)
