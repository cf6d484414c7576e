"""A frozen base that no card holds whole: each block of the language model lies in parts, one on each device (FSDP2).

A block's weights are gathered when it runs, forward and backward, and dropped behind it. What is trained, a small
adapter, stays whole on every device, as do embeddings, head and vision tower: gradients are summed as under DDP, and
checkpoints, results and resumed runs are those of DDP.

Gathering takes all devices at once, and devices differ in how many passes they need: one has more pieces, another
writes longer answers, only the first draws cards. So every pass begins with a vote, and before anything else that is
done together a device keeps the others company: as long as one of them runs a pass, it runs one over a single token.
While rollouts are written no vote is needed: the blocks are gathered once, and lie whole until all answers stand.

Source: torch.distributed.fsdp.fully_shard (FSDP2), arXiv:2304.11277.
Choice: not Lightning's ModelParallelStrategy, which would shard the adapter too and keep checkpoints of its own; with
    what is trained kept whole a resumed run is the uninterrupted one to the bit. It costs 16 bytes per trained weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from typing_extensions import override

from artifacts.stored_weights import StoredParameter
from lightning_modules.families.base import VisionLanguageFamily
from lightning_modules.packing import Packing

NAME = "fsdp2"
"""As `trainer.strategy`."""
IDLE, FORWARD, WITH_BACKWARD = 0, 1, 2
"""What a device votes for."""


class Company:
    """Takes part in the gathering of blocks as long as another device needs it.

    Attributes:
        passes: that were run for others.
        whole: the blocks are gathered for a while, and no pass needs the others.
    """

    def __init__(self, family: VisionLanguageFamily, device: torch.device) -> None:
        """Put a vote before every pass of a family.

        Args:
            family: its blocks lie in parts.
            device: of votes.
        """
        self.family, self.device, self.passes, self.whole = family, device, 0, False
        self._open = False  # a pass is yet to be differentiated, which gathers too
        self.own: Callable[..., Tensor] = family.hidden_states
        family.hidden_states = self.hidden_states

    def leave(self) -> None:
        """Take the vote away."""
        del self.family.hidden_states

    def hidden_states(self, inputs_embeds: Tensor, position_ids: Tensor, attention: Any) -> Tensor:
        """As the family's own, after those that ask for more have been kept company.

        Raises:
            RuntimeError: the pass before is not differentiated yet, or this one has nothing to differentiate.
        """
        if self.whole:
            return self.own(inputs_embeds, position_ids, attention)
        asked = WITH_BACKWARD if torch.is_grad_enabled() else FORWARD
        while (most := self.vote(asked)) != asked:
            self.accompany(most)
        states = self.own(inputs_embeds, position_ids, attention)
        if asked == WITH_BACKWARD:
            if not states.requires_grad:
                raise RuntimeError("under fsdp2 a pass from which nothing is learnt is to be run under torch.no_grad()")
            self._open = True
            states.register_hook(self._differentiated)
        return states

    def _differentiated(self, _: Tensor) -> None:
        self._open = False

    def vote(self, asked: int) -> int:
        """The most that any device asks for; errors as of `hidden_states`."""
        if self._open:
            raise RuntimeError("under fsdp2 a pass with gradient is to be differentiated before anything else is run")
        votes = torch.tensor(asked, device=self.device)
        torch.distributed.all_reduce(votes, op=torch.distributed.ReduceOp.MAX)
        return int(votes)

    def keep(self) -> None:
        """Run passes for others until no device needs one."""
        while (asked := self.vote(IDLE)) != IDLE:
            self.accompany(asked)

    def accompany(self, asked: int) -> None:
        """Run what another device asks for, over a single token."""
        self.passes += 1
        token = [self.family.eos_token_id]
        with torch.set_grad_enabled(asked == WITH_BACKWARD):
            embeds = self.family.embed_tokens(torch.tensor(token, device=self.device))
            positions = self.family.position_ids(token, []).to(self.device)
            states = self.own(embeds, positions, Packing([], [(None, 1)], device=self.device))
            if asked == WITH_BACKWARD:
                learnt = [parameter for parameter in self.family.parameters() if parameter.requires_grad]
                torch.autograd.grad(states.float().sum(), learnt, allow_unused=True)  # thrown away


def shard(family: VisionLanguageFamily, device: torch.device) -> None:
    """Leave of every block's frozen weights this device's part; of those still in files nothing else is read.

    Args:
        family: with adapters, which stay whole.
        device: of this process, whose group is set up.

    Raises:
        ValueError: there is no block, or its weights are packed in another type.
    """
    blocks = list(family.blocks())
    if not blocks:
        raise ValueError("fsdp2 shards the blocks that adapters act on, and this model has none")
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for block in blocks:
        if isinstance(block, FSDPModule):
            continue  # by the validation before the fit
        named = dict(block.named_parameters())
        packed = [name for name, p in named.items() if not p.is_floating_point()]
        if packed:
            raise ValueError(f"fsdp2 cannot shard quantised weights, such as {packed[0]}; load the base unquantised")
        whole = {p for name, p in named.items() if p.requires_grad or ".lora_" in name}
        fully_shard(block, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
        stored = {name: p for name, p in named.items() if isinstance(p, StoredParameter)}
        parts = {name: part_of(stored[name], block.get_parameter(name), device) for name in stored}
        block.load_state_dict(parts, strict=False, assign=True)


def part_of(stored: StoredParameter, empty: DTensor, device: torch.device) -> DTensor:
    """Read this device's rows of a weight.

    Args:
        stored: the weight.
        empty: what FSDP made of it.
        device: where the rows go.
    """
    mesh = empty.device_mesh
    rows = stored.rows(*own_rows(len(stored), mesh.get_local_rank(), mesh.size())).to(device)
    placed = {"shape": empty.shape, "stride": empty.stride(), "run_check": False}
    return DTensor.from_local(rows, mesh, empty.placements, **placed)


def own_rows(count: int, rank: int, ranks: int) -> tuple[int, int]:
    """The first of a device's rows, and the one after its last: as `torch.chunk` cuts, which FSDP goes by."""
    most = math.ceil(count / ranks)
    return min(rank * most, count), min((rank + 1) * most, count)


class ShardedBase(DDPStrategy):
    """DDP for what is trained, FSDP2 for the frozen blocks beneath."""

    company: Company | None = None

    @override
    def model_to_device(self) -> None:
        model = self.lightning_module
        shard(model.policy.family, self.root_device)  # block by block, so that the device never holds the whole
        parts = [name for name, p in model.named_parameters() if isinstance(p, DTensor)]
        model._ddp_params_and_buffers_to_ignore = parts  # neither copied from the first device nor reduced
        super().model_to_device()
        if self.company is None:
            self.company = Company(model.policy.family, self.root_device)

    @override
    def setup(self, trainer: L.Trainer) -> None:
        super().setup(trainer)
        # The one thing that Lightning's loops do together without asking the strategy.
        loop = trainer.fit_loop.epoch_loop
        own = type(loop)._broadcast_sigterm_tensor.__get__(loop)
        loop._broadcast_sigterm_tensor = lambda: (self.keep_company(), own())

    def keep_company(self) -> None:
        """Before anything else that devices do together."""
        if self.company is not None and torch.distributed.is_initialized():
            self.company.keep()

    @contextmanager
    def whole_base(self) -> Iterator[None]:
        """Have the blocks whole on every device for a while; all devices begin and end together."""
        self.keep_company()
        blocks = list(self.company.family.blocks())
        for block in blocks:
            block.set_reshard_after_forward(False)
            block.unshard()
        self.company.whole = True
        try:
            yield
        finally:
            self.company.whole = False
            for block in blocks:
                block.reshard()
                block.set_reshard_after_forward(True)

    @override
    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Without the parts of the base, which are frozen and nobody's to keep."""
        return {name: v for name, v in super().lightning_module_state_dict().items() if not isinstance(v, DTensor)}

    @override
    def barrier(self, *args: Any, **kwargs: Any) -> None:
        self.keep_company()
        super().barrier(*args, **kwargs)

    @override
    def broadcast(self, obj: Any, src: int = 0) -> Any:
        self.keep_company()
        return super().broadcast(obj, src)

    @override
    def reduce(self, tensor: Tensor, group: Any = None, reduce_op: Any = "mean") -> Tensor:
        self.keep_company()
        return super().reduce(tensor, group, reduce_op)

    @override
    def all_gather(self, tensor: Tensor, group: Any = None, sync_grads: bool = False) -> Tensor:
        self.keep_company()
        return super().all_gather(tensor, group, sync_grads)

    @override
    def pre_backward(self, closure_loss: Tensor) -> None:
        self.keep_company()  # the sum over devices comes next
        super().pre_backward(closure_loss)

    @override
    def teardown(self) -> None:
        if self.company is not None:
            self.company.leave()
            self.company = None
        super().teardown()
