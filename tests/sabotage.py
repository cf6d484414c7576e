"""Runs tests in a copy of the repository in which something is spoilt, and tells whether they noticed.

One process (this file, run as a script) has imported the libraries, but nothing of ours; each run is a fork of it.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = (
    *("torch", "lightning", "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl", "transformers.models.llama"),
    *("peft", "PIL.Image", "yaml", "tokenizers", "torch.utils.tensorboard", "pytest"),
)
LIMIT = 300
"""Seconds after which a run counts as neither noticed nor passed."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a run of tests.

    Attributes:
        status: pytest's: 0 all passed, 1 some failed; anything else is no answer.
        output: what pytest wrote.
    """

    status: int
    output: str


class Copy:
    """A copy of the repository's code and tests, in which tests can be run."""

    def __init__(self, folder: Path) -> None:
        """Copy into an empty folder, and start the process that runs tests there."""
        self.folder = folder
        for path in ROOT.iterdir():
            if path.is_dir() and any(path.glob("*.py")):
                shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        for path in (*ROOT.glob("*.py"), ROOT / "pyproject.toml"):
            shutil.copy(path, folder)
        for path in (ROOT / "tests", ROOT / "configs"):  # whatever they hold
            shutil.copytree(path, folder / path.name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        self.server = subprocess.Popen(
            [sys.executable, "-B", __file__],  # -B: a changed file must never be taken for its compiled old self
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        )

    def close(self) -> None:
        """End the process."""
        self.server.stdin.close()
        self.server.wait(timeout=30)

    def run(self, tests: Sequence[str], *, spoil: Sequence[tuple[str, str, str]] = (), ignore: Any = None) -> Outcome:
        """Run tests until the first that fails.

        Args:
            tests: pytest's arguments.
            spoil: (file, exact text, what stands there instead); each text stands once in its file.
            ignore: (module, class, field, whether subclasses too) of a `Config` whose field always has its default.

        Raises:
            LookupError: a text is not there once.
        """
        kept = {}
        try:
            for name, old, new in spoil:
                path = self.folder / name
                text = path.read_text("utf-8")
                kept.setdefault(path, text)
                if text.count(old) != 1:
                    raise LookupError(f"{name}: stands there {text.count(old)} times, expected once: {old!r}")
                path.write_text(text.replace(old, new), "utf-8")
            print(json.dumps({"tests": list(tests), "ignore": ignore}), file=self.server.stdin, flush=True)
            status = int(self.server.stdout.readline())
        finally:
            for path, text in kept.items():
                path.write_text(text, "utf-8")
        return Outcome(status, (self.folder / "output.txt").read_text("utf-8"))


# -- within the process that runs the tests ----------------------------------------------------------------------


class Ignored:
    """Stands in for a field of a dataclass: whatever is set, its default is found."""

    def __init__(self, field: dataclasses.Field) -> None:
        self.field = field

    def __get__(self, instance: Any, owner: type) -> Any:
        made = self.field.default_factory
        return self.field.default if made is dataclasses.MISSING else made()

    def __set__(self, instance: Any, value: Any) -> None:
        pass


class Ignore:
    """A plugin of pytest: once all tests are imported, a setting is ignored."""

    def __init__(self, module: str, name: str, field: str, below: bool) -> None:
        self.place, self.field, self.below = (module, name), field, below

    def pytest_collection_finish(self) -> None:
        """Put the stand-in where the field was, in the class and, if asked for, in all that inherit from it."""
        module, name = self.place
        classes = [attrgetter(name)(importlib.import_module(module))]
        for config in classes:
            classes += config.__subclasses__() if self.below else []
            setattr(config, self.field, Ignored(config.__dataclass_fields__[self.field]))


def run_here(tests: Sequence[str], ignore: Sequence[Any] | None) -> int:
    """Run tests in this process, a fork, with all output in a file; returns pytest's status."""
    import pytest

    signal.alarm(LIMIT)
    with open("output.txt", "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    arguments = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:warnings", "-m", "", *tests]
    return int(pytest.main(arguments, plugins=[Ignore(*ignore)] if ignore else []))


def serve() -> None:
    """Fork for each job that comes in, and answer with its status; negative: the signal that ended it."""
    for name in LIBRARIES:
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    sys.path = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).resolve().parent]
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if not child:
            status = 70
            try:
                status = run_here(job["tests"], job["ignore"])
            finally:
                sys.stdout.flush()
                os._exit(status)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
