"""Weights that are still in their safetensors files: what they are like is known, and rows are read when wanted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

NUMBERS_AT_ONCE = 2**22
"""Of a weight that is read in pieces."""


class StoredParameter(nn.Parameter):
    """A weight without numbers, on `meta`, that knows where they lie; its dtype is the one to read it in.

    Attributes:
        source: the tensor of a file.
    """

    source: InFile

    def rows(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Its numbers, or those of some rows; nothing else of the file is read.

        Raises:
            RuntimeError: the file is another one than when it was opened first.
        """
        path, key = self.source.file, self.source.key
        if state_of(path) != self.source.state:
            raise RuntimeError(
                f"{path}: changed since the model was built on it, so that its weights are not those that were "
                "identified; start again, and leave the file alone while a run reads it"
            )
        with safe_open(path, framework="pt") as file:
            found = file.get_slice(key)[start:stop] if self.ndim else file.get_tensor(key)
            return found.to(self.dtype, copy=True)  # what safetensors gives may still be the file itself

    def pieces(self) -> Iterator[Tensor]:
        """Its rows, a few at a time."""
        count = max(1, NUMBERS_AT_ONCE * len(self) // max(1, self.numel())) if self.ndim else 1
        for start in range(0, len(self) if self.ndim else 1, count):
            yield self.rows(start, start + count)


@dataclass(frozen=True)
class InFile:
    """What transformers is given in a tensor's place, so that it reads nothing: it takes all of it, cast as it wants.

    Attributes:
        file: of safetensors.
        key: the tensor's name there.
        shape: of the tensor.
        state: of the file.
    """

    file: Path
    key: str
    shape: tuple[int, ...]
    state: tuple[int, ...]

    def __getitem__(self, _: object) -> InFile:
        """All of it."""
        return self

    def to(self, device: object = None, dtype: torch.dtype | None = None) -> StoredParameter:
        """The weight in that precision; it has no device yet."""
        made = StoredParameter(torch.empty(self.shape, dtype=dtype, device="meta"), requires_grad=False)
        made.source = self
        return made


def in_files(files: Iterable[Path]) -> dict[str, InFile]:
    """What safetensors files hold, by name."""
    found = {}
    for path in files:
        state = state_of(path)
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            found |= {key: InFile(path, key, tuple(file.get_slice(key).get_shape()), state) for key in names}
    return found


def state_of(path: Path) -> tuple[int, ...]:
    """What changes when a file is written or replaced: its number, size and time of change."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def read_stored(model: nn.Module, but: Iterable[nn.Parameter] = ()) -> None:
    """Give a model's stored weights their numbers; one that two layers have stays one.

    Args:
        model: changed.
        but: those that stay in their files.
    """
    left, read = {id(parameter) for parameter in but}, {}
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            if isinstance(weight, StoredParameter) and id(weight) not in left:
                if id(weight) not in read:
                    read[id(weight)] = nn.Parameter(weight.rows())
                setattr(module, name, read[id(weight)])


@contextmanager
def standing_in(model: nn.Module) -> Iterator[None]:
    """Put constants that take no memory in the place of stored weights, for who makes tensors on a weight's device."""
    stored = [
        (module, name, weight)
        for module in model.modules()
        for name, weight in module.named_parameters(recurse=False)
        if isinstance(weight, StoredParameter)
    ]
    for module, name, weight in stored:
        constant = torch.zeros((), dtype=weight.dtype).expand(weight.shape)
        setattr(module, name, nn.Parameter(constant, requires_grad=False))
    try:
        yield
    finally:
        for module, name, weight in stored:
            setattr(module, name, weight)
