"""The tests that need a card, as a process of their own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.lines import OutOfTimeError

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests"


def gpu_tests(seconds: float, folder: Path = FOLDER, marker: str = "gpu") -> dict[str, Any]:
    """Run them, and count by what pytest says last.

    Args:
        seconds: after which they are ended.
        folder: or file of the tests.
        marker: of those that are wanted.

    Raises:
        OutOfTimeError: they were ended.
    """
    # Only files that have such tests are read: others may need what the machine does not have.
    files = [str(path) for path in sorted(folder.rglob("test_*.py")) if f"mark.{marker}" in path.read_text()]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", marker, *files]
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        told, _ = process.communicate(timeout=seconds)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            raise OutOfTimeError from None
        raise
    found: dict[str, Any] = {"seconds": round(time.monotonic() - began, 3), "exit_code": process.returncode}
    found |= counts(told)
    if process.returncode not in (0, 5):  # 5: none was found
        found["end_of_output"] = told[-2000:]
    return found


def counts(told: str) -> dict[str, int]:
    """How many passed, failed and so on, by the last line that says so.

    Examples:
        >>> counts("1 failed, 12 passed, 3 deselected in 4.2s")
        {'failed': 1, 'passed': 12, 'deselected': 3}
    """
    lines = [line for line in told.splitlines() if re.search(r"\bin [\d.]+s\b", line)]
    return {word: int(n) for n, word in re.findall(r"(\d+) ([a-z]+)", lines[-1].partition(" in ")[0])} if lines else {}
