"""A family with LoRA adapters on its language model: which act, which learn, and what is kept of them.

PEFT owns the layers and the format on disk. Its own switches turn all layers' gradients with the adapters, one name
at a time; here any number of adapters acts, summed, and at most one learns. This is the one place that sets PEFT's
private attributes `_disable_adapters` and `_active_adapter`; `tests/lightning_modules/test_policy.py` holds the
pinned version to what is expected of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora.layer import Linear as LoraLinear
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from artifacts.adapter_checks import check_tensors
from artifacts.adoption import Base
from artifacts.base_origin import base_name
from artifacts.lora_config import alpha_of, exact_config
from artifacts.stored_weights import standing_in
from lightning_modules.families.base import VisionLanguageFamily
from lightning_modules.families.nf4 import is_packed, unpacked
from lightning_modules.functional.lora import lora_linear, lora_over, lora_stacked, stacked


@dataclass(frozen=True)
class LoRASettings:
    """Shape of a trained adapter."""

    rank: int = 16
    """r, at least 1."""
    alpha: float = 32.0
    """Scale numerator; the update is alpha / rank · B A."""
    init_seed: int = 0
    """Seed of A; experts that are to be merged share it."""

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0:
            raise ValueError(f"rank must be at least 1 and alpha above 0, got rank={self.rank}, alpha={self.alpha}")


class AdaptedModel(nn.Module):
    """A family and its adapters.

    Attributes:
        family: the model; frozen until an adapter or a part of the base is made trainable.
        active: names of the adapters that act.
    """

    def __init__(self, family: VisionLanguageFamily) -> None:
        """Freeze a family and put it in evaluation mode."""
        super().__init__()
        self.family = family
        family.requires_grad_(False)
        self.family.eval()
        self._peft: list = []  # holds the PEFT wrapper outside the module tree: it shares the family's modules
        self._layers: list[LoraLayer] = []  # found once: adapters are switched many times a step
        self.active: tuple[str, ...] = ()

    def add_adapter(self, name: str, settings: LoRASettings) -> None:
        """Create a zero-effect adapter (B = 0) on the language model's linear layers."""
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            target_modules=self.family.lora_targets,
            task_type="CAUSAL_LM",
            lora_dropout=0.0,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.init_seed)
            self._attach(name, config)

    def load_adapter(self, name: str, config: dict, tensors: dict[str, Tensor]) -> None:
        """Attach an adapter that was read (and checked) from disk, frozen and inactive.

        Args:
            name: a new name.
            config: PEFT's adapter_config; it gives rank and alpha, the tensors' names say where they act.
            tensors: PEFT-layout tensors.

        Raises:
            ValueError: a tensor is of no layer of the language model, or of another shape.
        """
        pairs = check_tensors(tensors, f"adapter {name!r}")
        own = self.linears(pictures=False)
        strange = [module for module, (A, B) in pairs.items() if own.get(module) != (B.shape[0], A.shape[1])]
        if strange:
            raise ValueError(
                f"adapter {name!r} does not fit the model: {len(strange)} of {len(pairs)} layers, such as "
                f"{strange[0]}, are not there, read pictures or have another shape; `python -m merge adopt` translates "
                "older names"
            )
        self._attach(name, config_of(config, pairs, f"adapter {name!r}"))
        result = set_peft_model_state_dict(self._peft[0], tensors, adapter_name=name)
        missing = [key for key in result.missing_keys if f".{name}." in key]
        if missing or result.unexpected_keys:
            raise ValueError(
                f"adapter {name!r} does not fit the model: {len(missing)} tensors missing, "
                f"{len(result.unexpected_keys)} unexpected ({[*missing, *result.unexpected_keys][:2]})"
            )

    def _attach(self, name: str, config: LoraConfig) -> None:
        with standing_in(self.family.model):  # adapters are made where the weights beneath are
            if self._peft:
                self._peft[0].add_adapter(name, config)
                self._peft[0].set_adapter(name)  # the wrapper must not go on naming one that was taken out since
            else:
                self._peft.append(get_peft_model(self.family.model, config, adapter_name=name))
        self._layers = [module for module in self.family.model.modules() if isinstance(module, LoraLayer)]
        for layer in self._layers:
            if type(layer) is LoraLinear or is_packed(getattr(layer.get_base_layer(), "weight", None)):
                layer.forward = partial(_lora_forward, layer)
        self.activate(())

    def remove_adapter(self, name: str) -> None:
        """Take an adapter out of the model."""
        self._peft[0].delete_adapter(name)
        self.active = tuple(other for other in self.active if other != name)
        self.activate(self.active)

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters that are attached, whether they act or not."""
        return tuple(self._peft[0].peft_config) if self._peft else ()

    def bare(self, keep: Collection[str] = ()) -> None:
        """Take adapters out and freeze everything: the base as it was loaded, for whoever comes next.

        Args:
            keep: names of adapters that stay attached, without effect.
        """
        self.activate(())  # PEFT warns of every adapter that is taken out while it acts
        for name in self.adapters:
            if name not in keep:
                self.remove_adapter(name)
        self.activate(())
        self.family.requires_grad_(False)
        self.family.zero_grad(set_to_none=True)
        self.family.eval()
        self.checkpoint_layers(on=False)

    def adapter_state(self, name: str) -> tuple[dict, dict[str, Tensor]]:
        """The adapter's PEFT configuration, which names the base, and tensors (fp32, on the CPU)."""
        config = self._peft[0].peft_config[name].to_dict()
        config = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
        config["base_model_name_or_path"] = base_name(self.family.origin)
        # PEFT would look the base up on the hub, to see whether its vocabulary was resized.
        state = get_peft_model_state_dict(self._peft[0], adapter_name=name, save_embedding_layers=False)
        return config, {key: value.detach().float().cpu().contiguous().clone() for key, value in state.items()}

    def activate(self, names: Sequence[str], trainable: str | None = None) -> None:
        """Make exactly these adapters act, summed, and only `trainable` learn.

        Args:
            names: adapters that act; none means the bare base.
            trainable: one of `names`, or None to freeze all.
        """
        self.active = tuple(names)
        for layer in self._layers:
            layer._disable_adapters = not names
            layer._active_adapter = list(names)
        for key, parameter in self.family.model.named_parameters():
            if ".lora_" in key:
                parameter.requires_grad_(trainable is not None and f".{trainable}." in key)

    @contextmanager
    def acting(self, names: Sequence[str]) -> Iterator[None]:
        """Let other adapters act for a while, without touching what is trainable."""
        before = self.active
        self._switch(names)
        try:
            yield
        finally:
            self._switch(before)

    def _switch(self, names: Sequence[str]) -> None:
        self.active = tuple(names)
        for layer in self._layers:
            layer._disable_adapters = not names
            layer._active_adapter = list(names)

    @property
    def in_parts(self) -> bool:
        """Whether the base lies in parts on several devices: a weight is whole only while its block runs."""
        return any(isinstance(parameter, DTensor) for parameter in self.family.model.parameters())

    @contextmanager
    def folded(self) -> Iterator[None]:
        """Add the active adapters' updates to the weights for a while: cheaper decoding, equal up to rounding.

        The weights are put back from a copy, not by subtraction, so that nothing drifts: all adapted weights are held
        twice meanwhile. Weights of less than float32 are left alone, because small updates would be lost in their
        rounding: there the adapters act, with factors that are prepared once. So are weights that another layer has
        too: the head's, where it is the embedding's.
        """
        active = self.active
        layers = [layer for layer in self._layers if any(name in layer.lora_A for name in active)]
        if self.in_parts:
            yield
            return
        if any(layer.get_base_layer().weight.dtype != torch.float32 for layer in layers):
            with self._stacked(layers):
                yield
            return
        uses = Counter(id(weight) for _, weight in self.family.model.named_parameters(remove_duplicate=False))
        shared = [layer for layer in layers if uses[id(layer.get_base_layer().weight)] > 1]
        layers = [layer for layer in layers if layer not in shared]
        kept = []
        try:
            for layer in layers:
                weight = layer.get_base_layer().weight
                kept.append((weight, weight.detach().clone()))
                with torch.no_grad():
                    for name in active:
                        if name in layer.lora_A:
                            weight += layer.get_delta_weight(name)
            self._switch(())
            for layer in shared:
                layer._disable_adapters, layer._active_adapter = False, list(active)
            yield
        finally:
            for weight, original in kept:
                with torch.no_grad():
                    weight.copy_(original)
            self._switch(active)

    @contextmanager
    def _stacked(self, layers: Sequence[LoraLayer]) -> Iterator[None]:
        """Prepare the active factors of layers in low precision; they must not change meanwhile."""
        try:
            with torch.no_grad():
                for layer in layers:
                    layer._stacked = (list(self.active), *stacked(_updates(layer)))
            yield
        finally:
            for layer in layers:
                layer.__dict__.pop("_stacked", None)

    def linears(self, *, pictures: bool) -> dict[str, tuple[int, int]]:
        """Name -> (m, n) of the model's linear layers: those that read pictures, or all others."""
        towers = (*self.family.vision_parameters(), *self.family.projector_parameters())
        held = {id(parameter) for parameter in towers}
        return {
            bare_name(name).removesuffix(".weight"): (module.out_features, module.in_features)
            for prefix, module in self.family.model.named_modules()
            if isinstance(module, nn.Linear) and ".lora_" not in (name := f"{prefix}.weight")
            if (id(module.weight) in held) == pictures
        }

    def base(self, fingerprint: str) -> Base:
        """What an adapter that comes from elsewhere is held against."""
        tensors = self.family.model.state_dict(keep_vars=True)
        own = {bare_name(name): tensor for name, tensor in tensors.items() if ".lora_" not in name}
        return Base(fingerprint, self.linears(pictures=False), self.linears(pictures=True), own, self.family.origin)

    def checkpoint_layers(self, *, on: bool = True) -> None:
        """Keep no activations within a layer; the backward pass computes them again, which takes a third longer.

        Choice: by the layers' own attributes, because the model's method for it changed its name between versions.
        """
        for layer in self.family.model.modules():
            if isinstance(layer, GradientCheckpointingLayer):
                layer.gradient_checkpointing = on
                layer._gradient_checkpointing_func = recomputed
                layer.training = on  # its own flag alone, which transformers asks for; what is within stays in eval


def recomputed(layer: Callable[..., Any], *inputs: Any) -> Any:
    """What a layer gives, to be computed again in the backward pass; where there will be none, as it is.

    Choice: no random state is kept for the second time, since frozen layers draw no numbers; and decoding, which goes
        through every layer once per token, is spared the bookkeeping.
    """
    if not torch.is_grad_enabled():
        return layer(*inputs)
    return checkpoint(layer, *inputs, use_reentrant=False, preserve_rng_state=False)


def config_of(config: Mapping[str, Any], pairs: Mapping[str, tuple[Tensor, Tensor]], place: str) -> LoraConfig:
    """The LoRA that acts on exactly the layers that have factors, whatever the configuration calls them."""
    ranks = {module: A.shape[0] for module, (A, _) in pairs.items()}
    alphas = {module: alpha_of(config, [module], rank, place) for module, rank in ranks.items()}
    exact = exact_config(ranks, alphas, {"use_rslora": bool(config.get("use_rslora")), "task_type": "CAUSAL_LM"})
    fields = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "task_type")
    # As an expression it matches whole names; in a list also layers whose name ends alike.
    targets = "|".join(map(re.escape, exact["target_modules"]))
    return LoraConfig(target_modules=targets, **{key: exact[key] for key in fields})


def bare_name(name: str) -> str:
    """A tensor's name as it is without PEFT."""
    return name.replace(".base_layer.", ".")


def _updates(layer: LoraLayer) -> list[tuple[Tensor, Tensor, float]]:
    """(A, B, scale) of the adapters that act on a layer."""
    names = [name for name in layer._active_adapter if name in layer.lora_A]
    return [(layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]) for name in names]


def _lora_forward(layer: LoraLayer, x: Tensor) -> Tensor:
    """PEFT's forward of a linear layer, by `lora_linear` where that is the same: plain LoRA over frozen weights."""
    updates = [] if layer._disable_adapters else _updates(layer)
    if not updates:
        return layer.base_layer(x)
    weight, bias = layer.base_layer.weight, layer.base_layer.bias
    strange = layer.merged or layer.lora_variant or any(layer.lora_bias.get(name) for name in layer._active_adapter)
    autocast = not x.is_meta and torch.is_autocast_enabled(x.device.type)  # meta knows no autocast
    if strange or weight.requires_grad or autocast:
        return type(layer).forward(layer, x)
    low = x.dtype == torch.bfloat16
    served = {torch.bfloat16, torch.float32} if low else {x.dtype}
    if any(factor.dtype not in served for update in updates for factor in update[:2]):
        return type(layer).forward(layer, x)
    packed = low and is_packed(weight)
    if weight.dtype != x.dtype and not packed:
        return type(layer).forward(layer, x)
    held = getattr(layer, "_stacked", None)
    if low and held is not None and held[0] == layer._active_adapter and not torch.is_grad_enabled():
        return lora_stacked(x, layer.base_layer, *held[1:])
    if packed:
        return lora_over(x, layer.base_layer, lambda: unpacked(weight, x.dtype), updates)
    return lora_linear(x, weight, bias, updates)
