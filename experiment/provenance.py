"""Where a result comes from: command, commit, versions, machine, data."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from datamodules.prompts import VERSION

PACKAGES = ("torch", "lightning", "transformers", "peft", "tokenizers", "safetensors", "numpy", "pillow", "omegaconf")


def git_state(root: Path | None = None, runs_dir: Path | None = None) -> dict[str, Any]:
    """Commit, and whether the files that a run may use differ from it; empty outside a git checkout.

    Dirty are changes of tracked files, and new .py and .yaml files that git does not ignore.

    Args:
        root: of the checkout; by default the one that this file lies in.
        runs_dir: folder of results; new files in it do not count.
    """
    where = root or Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(where), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "HEAD")
    if not commit:
        return {}
    new = git("ls-files", "--others", "--exclude-standard", "-z", "*.py", "*.yaml").split("\0")
    results = runs_dir.resolve() if runs_dir else None
    used = [name for name in new if name and not (results and (where / name).resolve().is_relative_to(results))]
    return {"commit": commit, "dirty": bool(used or git("status", "--porcelain", "--untracked-files=no"))}


def installed(name: str) -> str | None:
    """A package's version; None where it is not there."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def provenance(runs_dir: Path | None = None) -> dict[str, Any]:
    """What a reader needs to repeat the run, without anything about its results; `runs_dir` as of `git_state`."""
    return {
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "git": git_state(runs_dir=runs_dir),
        "python": platform.python_version(),
        "packages": {name: installed(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "prompt_version": VERSION,
    }
