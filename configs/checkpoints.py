"""Published checkpoints: a folder or a repository of the hub where a model is expected, and the family that takes it.

`model: org/name`, `model: org/name@commit` or `model: /data/folder` stands for the class whose `model_types` names what
the checkpoint's config.json says, with `path` as its setting and, of the hub, the commit as `revision`.
"""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from configs.problems import did_you_mean
from guards.printable import shown

FAMILIES = Path(__file__).resolve().parents[1] / "lightning_modules" / "families"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
COMMIT = re.compile(r"snapshots/([0-9a-f]{40})/")
CONFIG = "config.json"


class CheckpointError(ValueError):
    """A checkpoint is not there, not whole, or not what it was taken for."""


def names_checkpoint(name: str) -> bool:
    """Whether a text may name one: a folder, something of a folder's form, or a hub id."""
    if name.endswith((".yaml", ".yml")):
        return False
    return bool(name.startswith(("/", ".", "~")) or Path(name).is_dir() or HUB_ID.fullmatch(name.partition("@")[0]))


def model_of(name: str) -> dict[str, Any]:
    """The class and settings that a checkpoint's name stands for.

    Args:
        name: a folder, or a hub id with or without `@revision`.

    Raises:
        CheckpointError: it cannot be read, or no family takes its model.
    """
    name = str(Path(name).expanduser()) if name.startswith("~") else name
    path, _, revision = (name, "", "") if Path(name).is_dir() else name.partition("@")
    stated, commit = stated_config(path, revision or "main")
    found = families().get(stated["model_type"])
    if found is None:
        near = did_you_mean(stated["model_type"], list(families()))
        raise CheckpointError(
            f"{path}: no family takes the model_type {shown(stated['model_type'])}; there are "
            f"{', '.join(sorted(families()))}{f'; {near}' if near else ''}"
        )
    return {"class_path": found, "init_args": {"path": path} | ({"revision": commit} if commit else {})}


def stated_config(path: str, revision: str = "main") -> tuple[dict[str, Any], str | None]:
    """What config.json says, and the commit that it is from where it is the hub's.

    What the local cache has is taken without asking the hub: a base does not change between two runs.

    Args:
        path: a folder, or a hub id.
        revision: branch, tag or commit.

    Raises:
        CheckpointError: it is not there, cannot be read, or is of an adapter.
    """
    folder = Path(path)
    if folder.is_dir():
        file, commit = folder / CONFIG, None
    elif HUB_ID.fullmatch(path) and not path.startswith((".", "/", "~")):
        file = hub_file(path, CONFIG, revision)
        commit = match[1] if (match := COMMIT.search(file.as_posix())) else None
    else:
        raise CheckpointError(f"{path}: no such folder, and no hub id, which is of the form organisation/name")
    if (file.parent / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{path}: holds an adapter (adapter_config.json), whose base would be loaded in silence; name the base as "
            "the model, and the adapter where adapters are named"
        )
    try:
        stated = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}; is {path} a checkpoint's folder?"
        ) from error
    if not isinstance(stated, dict) or not isinstance(stated.get("model_type"), str):
        raise CheckpointError(f"{file}: names no model_type; is it a checkpoint's?")
    return stated, commit


def hub_file(repository: str, name: str, revision: str) -> Path:
    """A file of a repository: from the local cache, else from the hub.

    Raises:
        CheckpointError: it is in neither, or the hub cannot be reached.
    """
    from huggingface_hub import hf_hub_download  # takes a second, and is needed for the hub alone
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        try:
            return Path(hf_hub_download(repository, name, revision=revision, local_files_only=True))
        except LocalEntryNotFoundError:
            return Path(hf_hub_download(repository, name, revision=revision))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise CheckpointError(
            f"{repository}: no such folder, and revision {revision} of the repository of that name is neither in the "
            f"local hub cache nor to be had from the hub: {reason} "
            f"Without a network, run `hf download {repository} --revision {revision}` where there is one and bring its "
            "cache (HF_HOME) here, or give the folder; a gated repository wants its terms accepted and `hf auth login`"
        ) from error


@cache
def families() -> dict[str, str]:
    """`model_type` -> dotted path of the family that takes it, as the families' files say themselves."""
    found = {}
    for file in sorted(FAMILIES.glob("*.py")):
        for node in ast.parse(file.read_bytes()).body:
            for line in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(line, ast.Assign) and getattr(line.targets[0], "id", "") == "model_types":
                    dotted = ".".join([FAMILIES.parent.name, FAMILIES.name, file.stem, node.name])
                    found |= dict.fromkeys(ast.literal_eval(line.value), dotted)
    return found
