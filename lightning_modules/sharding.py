"""A frozen base that no card holds whole: each block of the language model lies in parts, one on each device (FSDP2).

A block's weights are gathered when it runs, forward and backward, and dropped behind it. What is trained, a small
adapter, stays whole on every device, as do embeddings, head and vision tower: gradients are summed as under DDP, and
checkpoints, results and resumed runs are those of DDP.

Gathering takes all devices at once, and devices differ in how many passes they need: one has more pieces, another
writes longer answers, only the first draws cards. So every pass begins with a vote, and before anything else that is
done together a device keeps the others company: as long as one of them runs a pass, it runs one over a single token.

Source: torch.distributed.fsdp.fully_shard (FSDP2), arXiv:2304.11277.
Choice: not Lightning's ModelParallelStrategy, which would shard the adapter too and keep checkpoints of its own; with
    what is trained kept whole a resumed run is the uninterrupted one to the bit. It costs 16 bytes per trained weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from transformers.modeling_layers import GradientCheckpointingLayer
from typing_extensions import override

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
    """

    def __init__(self, family: VisionLanguageFamily, device: torch.device) -> None:
        """Put a vote before every pass of a family.

        Args:
            family: its blocks lie in parts.
            device: of votes.
        """
        self.family, self.device, self.passes = family, device, 0
        self.own: Callable[..., Tensor] = family.hidden_states
        family.hidden_states = self.hidden_states

    def leave(self) -> None:
        """Take the vote away."""
        del self.family.hidden_states

    def hidden_states(self, inputs_embeds: Tensor, position_ids: Tensor, attention: Any) -> Tensor:
        """As the family's own, with the others' consent.

        Raises:
            RuntimeError: another device differentiates while this one does not.
        """
        asked = WITH_BACKWARD if torch.is_grad_enabled() else FORWARD
        if self.vote(asked) != asked:
            raise RuntimeError("a device trains while another one answers questions; under fsdp2 they must not")
        return self.own(inputs_embeds, position_ids, attention)

    def vote(self, asked: int) -> int:
        """The most that any device asks for."""
        votes = torch.tensor(asked, device=self.device)
        torch.distributed.all_reduce(votes, op=torch.distributed.ReduceOp.MAX)
        return int(votes)

    def keep(self) -> None:
        """Run passes for others until no device needs one."""
        while (asked := self.vote(IDLE)) != IDLE:
            self.passes += 1
            token = [self.family.eos_token_id]
            with torch.set_grad_enabled(asked == WITH_BACKWARD):
                embeds = self.family.embed_tokens(torch.tensor(token, device=self.device))
                positions = self.family.position_ids(token, []).to(self.device)
                states = self.own(embeds, positions, Packing([], [(None, 1)], device=self.device))
                if asked == WITH_BACKWARD:
                    learnt = [parameter for parameter in self.family.parameters() if parameter.requires_grad]
                    torch.autograd.grad(states.float().sum(), learnt, allow_unused=True)  # thrown away


def blocks_of(model: nn.Module) -> Iterator[nn.Module]:
    """The language model's blocks: layers whose linear layers carry adapters."""
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer) and any(isinstance(m, LoraLayer) for m in module.modules()):
            yield module


def shard(model: nn.Module, device: torch.device) -> list[nn.Module]:
    """Leave of every block's frozen weights this device's part.

    Args:
        model: with adapters, which stay whole.
        device: of this process, whose group is set up.

    Returns:
        The blocks.

    Raises:
        ValueError: there is no block with adapters, or its weights are packed in another type.
    """
    blocks = list(blocks_of(model))
    if not blocks:
        raise ValueError("fsdp2 shards the blocks that carry adapters, and this model has none")
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for block in blocks:
        if isinstance(block, FSDPModule):
            continue  # by the validation before the fit
        packed = [name for name, p in block.named_parameters() if not p.is_floating_point()]
        if packed:
            raise ValueError(f"fsdp2 cannot shard quantised weights, such as {packed[0]}; load the base unquantised")
        whole = {p for name, p in block.named_parameters() if p.requires_grad or ".lora_" in name}
        fully_shard(block, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
    return blocks


class ShardedBase(DDPStrategy):
    """DDP for what is trained, FSDP2 for the frozen blocks beneath."""

    company: Company | None = None

    @override
    def model_to_device(self) -> None:
        model = self.lightning_module
        shard(model, self.root_device)  # block by block, so that the device never holds the whole
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
