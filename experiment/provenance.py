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
from datamodules.batch import Example, ImageSource
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


def provenance(runs_dir: Path | None = None) -> dict[str, Any]:
    """What a reader needs to repeat the run, without anything about its results; `runs_dir` as of `git_state`."""
    return {
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "git": git_state(runs_dir=runs_dir),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "prompt_version": VERSION,
    }


def data_sha256(data: VQADataModule, split: str) -> str:
    """Hash of a split's questions, options, answers and traces in their order, and of its picture files' bytes.

    Pictures that stand in a row count by the hash of their bytes, those that are drawn or cut when looked at by
    question id.
    """
    digest = hashlib.sha256()
    for example in data.splits[split]:
        row = (example.question_id, example.patient_id, example.question, example.options, example.answer)
        digest.update(repr((*row, sorted(example.reasoning.items()))).encode())
        for source in example.images:
            digest.update(picture_bytes(source))
    return digest.hexdigest()


def prompt_sha256(example: Example, instruction: str) -> str:
    """Hash of what is asked besides the options: the prompt's version, stem, instruction, pictures; 16 digits of it.

    Pictures count as of `data_sha256`.
    """
    digest = hashlib.sha256(repr((VERSION, example.question, instruction)).encode())
    for source in example.images:
        digest.update(picture_bytes(source))
    return digest.hexdigest()[:16]


def picture_bytes(source: ImageSource) -> bytes:
    """What tells a picture from another: its file, or the hash that it carries; nothing where it is made on demand."""
    return source.read_bytes() if isinstance(source, Path) else getattr(source, "sha256", "").encode()
