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


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Which processor this is; kernels are chosen by it, and the last bits of their sums with them."""
    named = ("model name", "cpu family", "model", "stepping")
    try:
        first = cpuinfo.read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
    except OSError:  # not Linux
        return ", ".join(dict.fromkeys([platform.machine(), platform.processor()])).strip(", ")
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first)}
    said = [facts[name] if name == "model name" else f"{name} {facts[name]}" for name in named if name in facts]
    return ", ".join([platform.machine(), *said])


def provenance(runs_dir: Path | None = None) -> dict[str, Any]:
    """What a reader needs to repeat the run, without anything about its results; `runs_dir` as of `git_state`."""
    import torch  # which sweeps, that ask for the commit alone, need not wait for

    return {
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "git": git_state(runs_dir=runs_dir),
        "python": platform.python_version(),
        "packages": {name: installed(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": processor(),
        "vector_units": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "prompt_version": VERSION,
    }
