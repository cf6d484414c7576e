"""An expert on disk: PEFT's layout plus a manifest that binds it to its base, its data and its bytes.

    adapter/adapter_config.json   adapter/adapter_model.safetensors   adapter/manifest.json

The manifest is written last and lists the others (see `artifacts.manifest`): a folder without it is not an adapter.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from artifacts.adapter_checks import TENSOR_NAME, AdapterError, check_config, check_header, check_tensors
from artifacts.durable import flush, folder_in_one_step, named
from artifacts.manifest import (
    MANIFEST,
    DamagedError,
    check_files,
    entry_of,
    file_sha256,
    made_anew,
    write_manifest,
)
from artifacts.manifest import read_manifest as read_any_manifest
from artifacts.stored_weights import StoredParameter

__all__ = [
    "Adapter",
    "AdapterError",
    "StoredAdapter",
    "acting_sha256",
    "adapter_sha256",
    "base_fingerprint",
    "is_complete",
    "open_adapter",
    "read_adapter",
    "write_adapter",
]

FORMAT = "lora-expert/1"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth", "pytorch_model.bin")
MAX_JSON_BYTES = 8 * 2**20
MANIFEST_KEYS = (
    "format kind base_fingerprint parent specialty experiment config_sha256 data_sha256 git files metrics extra"
).split()

SCALE = ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out")
"""Settings of adapter_config.json that decide what the weights do."""


@dataclass(frozen=True)
class Adapter:
    """A verified adapter in memory."""

    config: dict[str, Any]
    """PEFT's adapter_config.json."""
    tensors: dict[str, Tensor]
    """PEFT's names -> factors, as stored: A (r, n), B (m, r), the scale not applied."""
    manifest: dict[str, Any]
    """Where it comes from; the keys are `MANIFEST_KEYS`."""


class StoredAdapter:
    """A verified adapter whose factors stay on disk until a module's are asked for."""

    def __init__(self, folder: Path, config: dict[str, Any], manifest: dict[str, Any]) -> None:
        """Check every tensor, one module in memory at a time.

        Raises:
            AdapterError: says what is wrong and where.
        """
        self.folder, self.config, self.manifest = folder, config, manifest
        try:
            with safe_open(folder / WEIGHTS, framework="pt") as file:
                names = file.keys()
        except SafetensorError as error:
            raise AdapterError(f"{folder / WEIGHTS}: not a valid safetensors file: {error}") from error
        modules: dict[str, list[str]] = {}
        for name in names:
            match = TENSOR_NAME.fullmatch(name)
            modules.setdefault(match["module"] if match else "", []).append(name)
        self.shapes: dict[str, tuple[int, int]] = {}
        for found in modules.values() or [[]]:
            for module, (A, B) in check_tensors(self.tensors(found), str(folder)).items():
                self.shapes[module] = B.shape[0], A.shape[1]

    @property
    def sha256(self) -> str:
        """Of the weights, verified when the adapter was opened."""
        return self.manifest["files"][WEIGHTS]["sha256"]

    def tensors(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Some tensors; the file is opened for as long, so that its pages do not count as this process's memory."""
        with safe_open(self.folder / WEIGHTS, framework="pt") as file:
            return {name: file.get_tensor(name) for name in names}

    def pair(self, module: str) -> tuple[Tensor, Tensor]:
        """A (r, n) and B (m, r) as stored."""
        A, B = self.tensors(f"base_model.model.{module}.lora_{side}.weight" for side in "AB").values()
        return A, B


def base_fingerprint(named_tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Identify a base model by the names, shapes, dtypes and contents of its weights, in whatever order they come.

    Args:
        named_tensors: the base's own weights; leave the LoRA factors out, and give names as the bare model has them.
            Those that are still in their files are read a few rows at a time.

    Returns:
        64 hexadecimal digits.

    Raises:
        ValueError: a name comes twice, or nothing comes at all.

    Choice: each tensor is hashed alone and the sorted list of hashes is hashed again, so that weights may be streamed.
    """
    digests: dict[str, str] = {}
    for name, tensor in named_tensors:
        if name in digests:
            raise ValueError(f"base_fingerprint: the name {name!r} comes twice; were two models chained?")
        content = hashlib.sha256()
        for piece in tensor.pieces() if isinstance(tensor, StoredParameter) else (tensor,):
            content.update(piece.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy())
        digests[name] = f"{tuple(tensor.shape)} {tensor.dtype} {content.hexdigest()}"
    if not digests:
        raise ValueError("base_fingerprint: no weights given; did the filter remove everything?")
    return hashlib.sha256(json.dumps(sorted(digests.items())).encode()).hexdigest()


def write_adapter(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], manifest: Mapping) -> None:
    """Write an adapter so that at every moment the folder is either whole or not there.

    An adapter already standing at `folder` is replaced. On any failure what was written is removed again.

    Args:
        folder: the adapter folder itself, e.g. runs/x/pediatrics/adapter.
        config: PEFT's LoRA configuration (`LoraConfig.to_dict()` will do).
        tensors: PEFT's names -> factors.
        manifest: any of `MANIFEST_KEYS` but `format` and `files`; `kind` and `base_fingerprint` are needed.

    Raises:
        AdapterError: what is given could not be read back: not plain LoRA, not finite, unknown manifest keys.
        OSError: the disk is full or the folder cannot be written.
    """
    place = str(folder)
    check_tensors(tensors, place)
    stored = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in sorted(tensors.items())}

    def fill(path: Path) -> str:
        try:
            save_file(stored, path, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(f"{place}: cannot write {WEIGHTS}: {error}; is the disk full?") from error
        return file_sha256(path)

    write_adapter_with(folder, config, fill, manifest)


def write_adapter_with(folder: Path, config: Mapping[str, Any], fill: Callable[[Path], str], manifest: Mapping) -> None:
    """`write_adapter` for weights that are not in memory together.

    Args:
        folder: the adapter folder itself.
        config: PEFT's LoRA configuration.
        fill: writes the safetensors file, of checked tensors, to the path given, and returns the bytes' sha256.
        manifest: see `write_adapter`.

    Raises:
        AdapterError: not plain LoRA, or unknown manifest keys.
        OSError: the disk is full or the folder cannot be written.
    """
    folder = Path(folder)
    config, place = plain(dict(config)), str(folder)
    unknown = set(manifest) - set(MANIFEST_KEYS) | {"format", "files"} & set(manifest)
    absent = [key for key in ("kind", "base_fingerprint") if not manifest.get(key)]
    if unknown or absent:
        raise AdapterError(
            f"{place}: manifest keys {sorted(unknown)} are not allowed, {absent} are missing; allowed: "
            + ", ".join(key for key in MANIFEST_KEYS if key not in ("format", "files"))
        )
    check_config(config, place)
    with named(folder), folder_in_one_step(folder) as aside:
        (aside / CONFIG).write_text(dump(config), encoding="utf-8")
        hashes = {CONFIG: None, WEIGHTS: fill(aside / WEIGHTS)}
        for name in hashes:
            flush(aside / name)
        files = {name: entry_of(aside / name, sha256) for name, sha256 in hashes.items()}
        filled = dict.fromkeys(MANIFEST_KEYS) | plain(dict(manifest)) | {"format": FORMAT}
        del filled["files"]
        write_manifest(aside / MANIFEST, files, **filled)


def read_adapter(folder: Path, *, base_fingerprint: str | None) -> Adapter:
    """Load an adapter after checking that it is whole, unchanged, safe, plain LoRA, and of the expected base.

    Args:
        folder: the adapter folder.
        base_fingerprint: of the base it shall be applied to; None accepts any base.

    Raises:
        AdapterError: says what is wrong and where.
    """
    config, manifest = verified(Path(folder), base_fingerprint)
    try:
        tensors = load_file(Path(folder) / WEIGHTS)
    except SafetensorError as error:
        raise AdapterError(f"{Path(folder) / WEIGHTS}: not a valid safetensors file: {error}") from error
    check_tensors(tensors, str(folder))
    return Adapter(config, tensors, manifest)


def open_adapter(folder: Path, *, base_fingerprint: str | None) -> StoredAdapter:
    """`read_adapter` for weights that need not be in memory together; the same checks.

    Raises:
        AdapterError: says what is wrong and where.
    """
    return StoredAdapter(Path(folder), *verified(Path(folder), base_fingerprint))


def verified(folder: Path, base_fingerprint: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configuration and manifest of an adapter, checked but for the tensors' contents.

    Raises:
        AdapterError: says what is wrong and where.
    """
    manifest = read_manifest(folder)
    found = manifest["base_fingerprint"]
    if base_fingerprint is not None and found != base_fingerprint:
        raise AdapterError(
            f"{folder}: trained on the base with fingerprint {found}, but asked for {base_fingerprint}; "
            "adapters of one base do not fit another, even where the shapes agree"
        )
    with told_as_adapter():
        check_files(folder, manifest["files"], made_anew(folder / MANIFEST))
    config = read_json(folder / CONFIG)
    check_config(config, str(folder))
    check_header(folder / WEIGHTS)
    return config, manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an adapter folder, its form checked, the other files not yet.

    Raises:
        AdapterError: there is none, or it is not of this format, or the weights are a pickle.
    """
    if not folder.is_dir():
        raise AdapterError(f"{folder}: no such adapter folder")
    check_no_pickle(folder)
    if not (folder / MANIFEST).is_file():
        raise AdapterError(
            f"{folder}: no {MANIFEST}; the folder is half-written, or was not written by this project "
            "(`python -m merge adopt` takes up what PEFT saved)"
        )
    with told_as_adapter():
        manifest = read_any_manifest(folder / MANIFEST)
    if manifest.get("format") != FORMAT or set(manifest) != set(MANIFEST_KEYS):
        raise AdapterError(f"{folder / MANIFEST}: format {manifest.get('format')!r}, expected {FORMAT!r} and its keys")
    files = manifest["files"]
    if set(files) != {CONFIG, WEIGHTS}:
        raise AdapterError(f"{folder / MANIFEST}: files must be exactly {CONFIG} and {WEIGHTS}, got {files!r:.200}")
    if not isinstance(manifest["parent"], dict | None):
        raise AdapterError(f"{folder / MANIFEST}: parent must be an object or null, got {manifest['parent']!r:.200}")
    return manifest


@contextmanager
def told_as_adapter() -> Iterator[None]:
    """Let damage of an adapter's files be told as all other faults of an adapter are."""
    try:
        yield
    except DamagedError as error:
        raise AdapterError(str(error)) from error


def result_of(folder: Path) -> dict[str, Any] | None:
    """The manifest of an adapter whose files are as they were written; None where none was finished here.

    Raises:
        AdapterError: one was finished and is damaged; says how to make it anew.
    """
    return verified(folder, None)[1] if (folder / MANIFEST).exists() else None


def check_no_pickle(folder: Path) -> None:
    """Refuse a folder with pickled weights.

    Raises:
        AdapterError: names the file.
    """
    for name in PICKLES:
        if (folder / name).exists():
            raise AdapterError(f"{folder / name}: a pickle, which can run code when read; only {WEIGHTS} is accepted")


def is_complete(folder: Path) -> bool:
    """Whether a folder holds a whole adapter, by manifest and file sizes; contents are hashed by `read_adapter`."""
    folder = Path(folder)
    try:
        files = read_manifest(folder)["files"]
    except AdapterError:
        return False
    return all((folder / n).is_file() and (folder / n).stat().st_size == e["bytes"] for n, e in files.items())


def adapter_sha256(folder: Path) -> str:
    """The hash of the weights as the manifest records it: the name by which a child refers to its parent.

    Raises:
        AdapterError: there is no valid manifest.
    """
    return read_manifest(Path(folder))["files"][WEIGHTS]["sha256"]


def acting_sha256(folder: Path) -> str:
    """Hash of all that an adapter's answers depend on: its weights, and the settings that scale them.

    Raises:
        AdapterError: there is no valid manifest, or no configuration.
    """
    config = read_json(Path(folder) / CONFIG)
    scale = {key: config[key] for key in SCALE if config.get(key)}
    return hashlib.sha256((adapter_sha256(folder) + json.dumps(plain(scale), sort_keys=True)).encode()).hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of bounded size.

    Raises:
        AdapterError: absent, too large, not JSON, or not an object.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise AdapterError(f"{path}: more than {MAX_JSON_BYTES} bytes of JSON")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise AdapterError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def plain(value: Any) -> Any:
    """JSON's types only: sets sorted, paths as text, and numbers that are not finite as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(plain(item) for item in value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def dump(content: Mapping[str, Any]) -> str:
    """The one spelling of a JSON file: sorted keys, indented, a newline at the end."""
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
