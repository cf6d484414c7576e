"""The weights of a base model's checkpoint on disk, and the files beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from artifacts.adapter_files import PICKLES, AdapterError
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


def weight_of(module: str, shape: tuple[int, int], weights: list[Weight]) -> Weight:
    """The base's weight of a module: the one whose name ends with the module's, or with most of it.

    Raises:
        AdapterError: there is none of this shape, or there are several.
    """
    ends = (f"{module}.weight", f"{module.removeprefix('model.')}.weight")
    for end in ends:
        found = [w for w in weights if w.name == end or w.name.endswith(f".{end}")]
        if len(found) == 1 and found[0].shape == shape and found[0].dtype in DTYPES:
            return found[0]
    have = [f"{w.name} {w.shape} {w.dtype}" for w in weights if w.name.endswith(f".{module.rpartition('.')[2]}.weight")]
    raise AdapterError(
        f"{module} of shape {shape} has no weight of its own in the base, or several: {have[:3]}; "
        "is this the base that the experts were trained on? Quantised weights cannot be added to"
    )


def metadata_of(shard: Path) -> dict[str, str]:
    """The text beside a shard's tensors."""
    with safe_open(shard, framework="pt") as file:
        return dict(file.metadata() or {"format": "pt"})


def beside(base: Path) -> list[Path]:
    """The files of a checkpoint that hold no weights, and do not list them."""
    files = (path for path in sorted(base.iterdir()) if path.is_file() and path.name not in (INDEX, MANIFEST))
    return [path for path in files if path.suffix != ".safetensors"]
