"""Where a result comes from: command, commit, versions, machine, data."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from datamodules.base import VQADataModule
from datamodules.prompts import VERSION

PACKAGES = ("torch", "lightning", "transformers", "peft", "tokenizers", "safetensors", "numpy", "pillow", "omegaconf")


def git_state(root: Path | None = None) -> dict[str, Any]:
    """Commit and whether tracked files differ from it; empty outside a git checkout."""
    where = root or Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(where), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "HEAD")
    return {"commit": commit, "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))} if commit else {}


def provenance() -> dict[str, Any]:
    """What a reader needs to repeat the run, without anything about its results."""
    return {
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "git": git_state(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "prompt_version": VERSION,
    }


def data_sha256(data: VQADataModule, split: str) -> str:
    """Hash of a split's questions, options, answers and traces in their order, and of its picture files' bytes.

    Pictures that are drawn or cut when looked at count by question id.
    """
    digest = hashlib.sha256()
    for example in data.splits[split]:
        row = (example.question_id, example.patient_id, example.question, example.options, example.answer)
        digest.update(repr((*row, sorted(example.reasoning.items()))).encode())
        for source in example.images:
            if isinstance(source, Path):
                digest.update(source.read_bytes())
    return digest.hexdigest()
