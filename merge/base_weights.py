"""The weights of a base model's checkpoint on disk, and the files beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from artifacts.adapter_files import PICKLES, AdapterError
from artifacts.layer_names import core
from artifacts.tensor_stream import DTYPES

MANIFEST, INDEX = "merge_manifest.json", "model.safetensors.index.json"


@dataclass(frozen=True)
class Weight:
    """One tensor of the base."""

    shard: Path
    name: str
    dtype: str
    """safetensors' name."""
    shape: tuple[int, ...]

    def read(self) -> Tensor:
        """Its contents."""
        with safe_open(self.shard, framework="pt") as file:
            return file.get_tensor(self.name)


def base_weights(base: Path) -> list[Weight]:
    """Every tensor of a checkpoint's safetensors files.

    Raises:
        AdapterError: none, an unreadable file, or a pickle, which is not opened.
    """
    if any((base / name).exists() for name in PICKLES):
        raise AdapterError(f"{base}: holds pickled weights, which can run code when read; convert it to safetensors")
    found = []
    for shard in sorted(base.glob("*.safetensors")):
        try:
            with safe_open(shard, framework="pt") as file:
                for name in file.keys():
                    piece = file.get_slice(name)
                    found.append(Weight(shard, name, piece.get_dtype(), tuple(piece.get_shape())))
        except SafetensorError as error:
            raise AdapterError(f"{shard}: not a valid safetensors file: {error}") from error
    if not found:
        raise AdapterError(f"{base}: no safetensors files; is this the folder of the base's checkpoint?")
    return found


def targets_of(shapes: Mapping[str, tuple[int, int]], weights: Sequence[Weight]) -> dict[Weight, str]:
    """The base's weights that an adapter changes, each with its module; files may have older names, see `core`.

    Args:
        shapes: module -> (m, n).
        weights: of the base.

    Raises:
        AdapterError: a module has no weight of its shape of its own, or several.
    """
    named: dict[str, list[Weight]] = {}
    for weight in weights:
        named.setdefault(core(weight.name), []).append(weight)
    targets = {}
    for module, shape in shapes.items():
        found = named.get(core(f"{module}.weight"), [])
        if len(found) != 1 or found[0].shape != shape or found[0].dtype not in DTYPES or found[0] in targets:
            last = f".{module.rpartition('.')[2]}.weight"
            have = [f"{w.name} {w.shape} {w.dtype}" for w in found or weights if w in found or w.name.endswith(last)]
            raise AdapterError(
                f"{module} of shape {shape} has no weight of its own in the base, or several: {have[:3]}; is this the "
                "base that the experts were trained on? Quantised weights cannot be added to, nor a head that shares "
                "the embeddings' (there keep the LoRA)"
            )
        targets[found[0]] = module
    return targets


def metadata_of(shard: Path) -> dict[str, str]:
    """The text beside a shard's tensors."""
    with safe_open(shard, framework="pt") as file:
        return dict(file.metadata() or {"format": "pt"})


def beside(base: Path) -> list[Path]:
    """The files of a checkpoint that hold no weights, and do not list them."""
    files = (path for path in sorted(base.iterdir()) if path.is_file() and path.name not in (INDEX, MANIFEST))
    return [path for path in files if path.suffix != ".safetensors"]
