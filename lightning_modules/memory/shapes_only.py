"""Runs a model on a processor by the shapes of its activations alone, and by the numbers of its indices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from typing_extensions import override


class ShapesOnly(TorchDispatchMode):
    """While active, nothing is computed whose result has fractions: it has its shape, and no contents.

    Whole numbers and truth values are computed, which tensors on `meta` cannot be: picture towers cut, sort and place
    patches by them. Memory of what has no contents is asked for and never written to, so that it takes no room.
    """

    @override
    def __torch_dispatch__(
        self, func: Callable, types: Iterable[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if func.is_view or not any(tensor.is_floating_point() for tensor in given):
            return func(*args, **kwargs)
        shapes = {id(tensor): on("meta", tensor) for tensor in given}
        bare_args, bare = tree_map_only(Tensor, lambda tensor: shapes[id(tensor)], (args, kwargs))
        out = func(*bare_args, **(bare | {"device": torch.device("meta")} if "device" in bare else bare))
        if not all(leaf.is_floating_point() for leaf in tree_leaves(out) if isinstance(leaf, Tensor)):
            return func(*args, **kwargs)  # of a place or of a truth, which is computed
        written = {id(shapes[id(tensor)]): tensor for tensor in given}  # in place
        return tree_map_only(Tensor, lambda t: written[id(t)] if id(t) in written else on("cpu", t), out)


def on(device: str, tensor: Tensor) -> Tensor:
    """A tensor of the same shape without contents."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)


@contextmanager
def without_weights(module: nn.Module) -> Iterator[None]:
    """Put one number on the processor in the place of each weight meanwhile."""
    held = [(own, dict(own)) for part in module.modules() for own in (part._parameters, part._buffers)]
    for own, tensors in held:
        for name, tensor in tensors.items():
            if tensor is not None:
                number = torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
                own[name] = nn.Parameter(number, requires_grad=False) if isinstance(tensor, nn.Parameter) else number
    try:
        yield
    finally:
        for own, tensors in held:
            own.update(tensors)
