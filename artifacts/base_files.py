"""Weights of a base that this code base trained: what was trained, the tokenizer, and a manifest written last."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from artifacts.durable import flush, folder_in_one_step

WEIGHTS, MANIFEST = "model.safetensors", "manifest.json"


def write_base(folder: Path, family: Any, manifest: dict[str, Any]) -> None:
    """Write the trained parameters (fp32), the tokenizer and the manifest, all or nothing.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    trained = {n: p.detach().cpu().contiguous() for n, p in family.named_parameters() if p.requires_grad}
    with folder_in_one_step(folder) as part:
        try:
            save_file(trained, part / WEIGHTS, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(f"{folder}: cannot write {WEIGHTS}: {error}; is the disk full?") from error
        flush(part / WEIGHTS)
        family.tokenizer.save_pretrained(part)
        digest = hashlib.sha256((part / WEIGHTS).read_bytes()).hexdigest()
        content = manifest | {"format": "base/1", "kind": "base", "files": {WEIGHTS: digest}}
        (part / MANIFEST).write_text(json.dumps(content, indent=2) + "\n")
        flush(part / MANIFEST)


def is_base_complete(folder: Path) -> bool:
    """Whether a base stands there whole: its manifest is there and the weights are what it recorded."""
    if not (folder / MANIFEST).is_file() or not (folder / WEIGHTS).is_file():
        return False
    try:
        recorded = json.loads((folder / MANIFEST).read_text())["files"][WEIGHTS]
    except (ValueError, KeyError, TypeError):  # not what `write_base` wrote
        return False
    return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest() == recorded
