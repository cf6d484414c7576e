"""Weights of a base that this code base trained: what was trained, the tokenizer, and a manifest written last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from artifacts.durable import folder_in_one_step
from artifacts.manifest import MANIFEST, DamagedError, measured, verify, write_manifest

WEIGHTS, FORMAT = "model.safetensors", "base/2"
READ = (".json", ".jinja", ".txt", ".model", ".safetensors")
"""Files that a tokenizer or a model is read from; one that the manifest does not list would be read too."""


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
        family.tokenizer.save_pretrained(part)
        files = measured(part, [path.relative_to(part).as_posix() for path in part.rglob("*") if path.is_file()])
        write_manifest(part / MANIFEST, files, **(manifest | {"format": FORMAT, "kind": "base"}))


def read_base(folder: Path) -> dict[str, Any]:
    """The manifest of a base whose every file, tokenizer included, is as it was written.

    Raises:
        DamagedError: it is not whole, or not as it was written; says how to train it anew.
    """
    remedy = f"delete {folder}, and the same command makes it anew from the run's last checkpoint, or by training"
    manifest = verify(folder / MANIFEST, remedy)
    if manifest.get("format") != FORMAT or WEIGHTS not in manifest["files"]:
        raise DamagedError(
            f"{folder / MANIFEST}: format {manifest.get('format')!r}, expected {FORMAT!r}, which lists the tokenizer "
            f"too; was it written by an earlier version? {remedy}"
        )
    found = {path.name for path in folder.iterdir() if path.suffix in READ} - {MANIFEST}
    if strange := sorted(found - set(manifest["files"])):
        raise DamagedError(f"{folder / strange[0]}: no file of this base, and would be read with it; move it elsewhere")
    return manifest


def is_base_complete(folder: Path) -> bool:
    """Whether a base stands there: its manifest, which is written last, does; errors as of `read_base`."""
    return (folder / MANIFEST).exists() and bool(read_base(folder))
