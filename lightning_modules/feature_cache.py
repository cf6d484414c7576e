"""Picture features that were computed once: in memory with a bound, and in a folder if one is given."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

Item = TypeVar("Item")


class Recent(Generic[Item]):
    """Items by key, bounded by their bytes; the least recently used leave first."""

    def __init__(self, max_bytes: int) -> None:
        """Start empty."""
        self.max_bytes = max_bytes
        self.bytes = 0
        self._items: OrderedDict[str, tuple[Item, int]] = OrderedDict()

    def __len__(self) -> int:
        """Items held."""
        return len(self._items)

    def get(self, key: str) -> Item | None:
        """An item, which is the most recently used one then."""
        if key not in self._items:
            return None
        self._items.move_to_end(key)
        return self._items[key][0]

    def put(self, key: str, item: Item, size: int) -> None:
        """Hold an item of `size` bytes, unless it alone is above the bound."""
        self.bytes -= self._items.pop(key, (None, 0))[1]
        if size > self.max_bytes:
            return
        self._items[key] = (item, size)
        self.bytes += size
        while self.bytes > self.max_bytes:
            self.bytes -= self._items.popitem(last=False)[1][1]


class FeatureCache:
    """Tensors by key; the least recently used leave memory first, nothing leaves the folder."""

    def __init__(self, max_bytes: int, folder: Path | None = None, model: str = "") -> None:
        """Start empty; what the folder holds is found when it is asked for.

        Args:
            max_bytes: bound of what is held in memory.
            folder: keeps features between processes; shared by models, each with a part of its own.
            model: identifies weights and picture processing, whose features alone are taken from the folder.
        """
        self.held: Recent[Tensor] = Recent(max_bytes)
        self.folder = None if folder is None else folder / hashlib.sha256(model.encode()).hexdigest()[:32]

    def get(self, key: str) -> Tensor | None:
        """What is stored under a key; a file that cannot be read counts as absent."""
        held = self.held.get(key)
        if held is not None:
            return held
        path = self._path(key)
        if path is None or not path.is_file():
            return None
        try:
            tensor = load_file(path)["features"]
        except (SafetensorError, KeyError, OSError):
            return None
        self.held.put(key, tensor, tensor.nbytes)
        return tensor

    def put(self, key: str, tensor: Tensor) -> None:
        """Store under a key; where the folder cannot be written, memory must do."""
        self.held.put(key, tensor, tensor.nbytes)
        path = self._path(key)
        if path is None:
            return
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({"features": tensor.detach().cpu().contiguous()}, aside)
            os.replace(aside, path)
        except (SafetensorError, OSError):
            with suppress(OSError):
                aside.unlink(missing_ok=True)

    def _path(self, key: str) -> Path | None:
        if self.folder is None:
            return None
        name = hashlib.sha256(key.encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"
