"""A vision-language model with LoRA adapters: prompts in, log-probabilities out. Knows no family by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora.layer import Linear as LoraLinear
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from datamodules.batch import Example, image_key, load_image
from datamodules.prompts import prompt_text
from lightning_modules.families.base import ImageInput, VisionLanguageFamily
from lightning_modules.feature_cache import FeatureCache, Recent
from lightning_modules.functional.lora import lora_linear
from lightning_modules.functional.scoring import token_logps
from lightning_modules.packing import Packing


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


@dataclass(frozen=True)
class Prompt:
    """One tokenised prompt.

    Attributes:
        ids: L token ids with image placeholders in place.
        images: (key, preprocessed picture) in order.
        positions: (A, L) int64.
        shared: first tokens that may be computed once for several prompts: they hold all pictures, or are none.
    """

    ids: tuple[int, ...]
    images: tuple[tuple[str, ImageInput], ...]
    positions: Tensor = field(compare=False)
    shared: int = 0

    @property
    def prefix(self) -> tuple:
        """Equal for prompts whose shared tokens are the same."""
        return self.ids[: self.shared], tuple(key for key, _ in self.images)


@dataclass(frozen=True)
class Line:
    """Prompts and what follows them, packed.

    Attributes:
        ids: (N,) int64.
        positions: (A, N) int64.
        images: (key, preprocessed picture) of every placeholder run in the line, in order.
        packing: which tokens see which.
        rests: tokens of each row that belong to its prompt, at least 1; the last of them predicts what follows.
    """

    ids: Tensor
    positions: Tensor
    images: tuple[tuple[str, ImageInput], ...]
    packing: Packing
    rests: tuple[int, ...]


@dataclass(frozen=True)
class Scores:
    """Log-probabilities of completions.

    Attributes:
        logps: (B, T) nats, zero outside the mask.
        entropy: (B, T) nats, detached.
        completion_mask: (B, T) bool, True at completion tokens.
        tokens: N, tokens that the language model ran on.
    """

    logps: Tensor
    entropy: Tensor
    completion_mask: Tensor
    tokens: int


class Policy(nn.Module):
    """Owns the family, its adapters and the cache of picture features."""

    def __init__(self, family: VisionLanguageFamily, *, cache: FeatureCache | None = None) -> None:
        """Wrap a family; everything is frozen until an adapter or a part of the base is made trainable.

        Args:
            family: the model.
            cache: of picture features; None holds up to 256 MiB in memory.
        """
        super().__init__()
        self.family = family
        family.requires_grad_(False)
        self.family.eval()
        self._peft: list = []  # holds the PEFT wrapper outside the module tree: it shares the family's modules
        self.active: tuple[str, ...] = ()
        self.cache = cache if cache is not None else FeatureCache(2**28)
        self._inputs: Recent[ImageInput] = Recent(self.cache.held.max_bytes)
        self.register_buffer("banned", torch.tensor(family.banned_token_ids, dtype=torch.long), persistent=False)

    # -- adapters ------------------------------------------------------------------------------------------------

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
            config: PEFT's adapter_config.
            tensors: PEFT-layout tensors.

        Raises:
            ValueError: the tensors are not exactly this model's adapter tensors.
        """
        keep = {"r", "lora_alpha", "target_modules", "use_rslora", "rank_pattern", "alpha_pattern", "task_type"}
        fields = {key: value for key, value in config.items() if key in keep and value is not None}
        self._attach(name, LoraConfig(**fields))
        result = set_peft_model_state_dict(self._peft[0], tensors, adapter_name=name)
        missing = [key for key in result.missing_keys if f".{name}." in key]
        if missing or result.unexpected_keys:
            raise ValueError(
                f"adapter {name!r} does not fit the model: {len(missing)} tensors missing, "
                f"{len(result.unexpected_keys)} unexpected ({[*missing, *result.unexpected_keys][:2]})"
            )

    def _attach(self, name: str, config: LoraConfig) -> None:
        if self._peft:
            self._peft[0].add_adapter(name, config)
        else:
            self._peft.append(get_peft_model(self.family.model, config, adapter_name=name))
        for layer in self._lora_layers():
            if type(layer) is LoraLinear:
                layer.forward = partial(_lora_forward, layer)
        self.activate(())

    def remove_adapter(self, name: str) -> None:
        """Take an adapter out of the model."""
        self._peft[0].delete_adapter(name)
        self.active = tuple(other for other in self.active if other != name)
        self.activate(self.active)

    def adapter_state(self, name: str) -> tuple[dict, dict[str, Tensor]]:
        """The adapter's PEFT configuration and tensors (fp32, on the CPU)."""
        config = self._peft[0].peft_config[name].to_dict()
        config = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
        state = get_peft_model_state_dict(self._peft[0], adapter_name=name)
        return config, {key: value.detach().float().cpu().contiguous().clone() for key, value in state.items()}

    def activate(self, names: Sequence[str], trainable: str | None = None) -> None:
        """Make exactly these adapters act, summed, and only `trainable` learn.

        Args:
            names: adapters that act; none means the bare base.
            trainable: one of `names`, or None to freeze all.
        """
        self.active = tuple(names)
        for layer in self._lora_layers():
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
        for layer in self._lora_layers():
            layer._disable_adapters = not names
            layer._active_adapter = list(names)

    @contextmanager
    def folded(self) -> Iterator[None]:
        """Add the active adapters' updates to the weights for a while: cheaper decoding, equal up to rounding.

        The weights are put back from a copy, not by subtraction, so that nothing drifts: all adapted weights are held
        twice meanwhile. Weights of less than float32 are left alone, with the adapters acting: small updates would be
        lost in their rounding.
        """
        active = self.active
        layers = [layer for layer in self._lora_layers() if any(name in layer.lora_A for name in active)]
        if any(layer.get_base_layer().weight.dtype != torch.float32 for layer in layers):
            yield
            return
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
            yield
        finally:
            for weight, original in kept:
                with torch.no_grad():
                    weight.copy_(original)
            self._switch(active)

    def _lora_layers(self) -> Iterator[LoraLayer]:
        return (module for module in self.family.model.modules() if isinstance(module, LoraLayer))

    def checkpoint_layers(self) -> None:
        """Keep no activations within a layer; the backward pass computes them again, which takes a third longer."""
        self.family.model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        for layer in self.family.model.modules():
            if isinstance(layer, GradientCheckpointingLayer):
                layer.training = True  # its own flag alone, which transformers asks for; what is within stays in eval

    # -- prompts and pictures ------------------------------------------------------------------------------------

    def prompt(self, example: Example, instruction: str) -> Prompt:
        """Tokenise a question under a guideline's instruction.

        Raises:
            BadExampleError: a picture cannot be read.
        """
        return self.prompts(example, [instruction])[0]

    def prompts(self, example: Example, instructions: Sequence[str]) -> list[Prompt]:
        """Tokenise a question under several instructions, and note how far the prompts are the same.

        Raises:
            BadExampleError: a picture cannot be read.
        """
        images = tuple(self._image(source) for source in example.images)
        counts = [item.n_tokens for _, item in images]
        ids = [tuple(self.family.prompt_ids(prompt_text(example, text), counts)) for text in instructions]
        shared = common_length(ids)
        if self.family.image_token_id in ids[0][shared:]:
            shared = 0
        grids = [item.grid for _, item in images]
        return [Prompt(prompt, images, self.family.position_ids(prompt, grids), shared) for prompt in ids]

    def _image(self, source) -> tuple[str, ImageInput]:
        image = load_image(source)
        key = image_key(image)
        item = self._inputs.get(key)
        if item is None:
            item = self.family.preprocess(image)
            self._inputs.put(key, item, item.pixels.nbytes)
        return key, item

    def completion_ids(self, text: str) -> list[int]:
        """Tokenise a completion and end it."""
        ids = self.family.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [*ids, self.family.eos_token_id]

    def features(self, images: Iterable[tuple[str, ImageInput]]) -> dict[str, Tensor]:
        """Picture features by key: each distinct picture is encoded once, and kept while the tower is frozen."""
        wanted = dict(images)
        if any(p.requires_grad for p in (*self.family.vision_parameters(), *self.family.projector_parameters())):
            return dict(zip(wanted, self.family.encode_images(list(wanted.values())), strict=True)) if wanted else {}
        found = {key: self.cache.get(key) for key in wanted}
        new = [key for key, feature in found.items() if feature is None]
        for start in range(0, len(new), 64):
            keys = new[start : start + 64]
            with torch.no_grad():
                encoded = self.family.encode_images([wanted[key] for key in keys])
            for key, feature in zip(keys, encoded, strict=True):
                found[key] = feature.clone()
                self.cache.put(key, found[key])
        return found

    def line(self, prompts: Sequence[Prompt], tails: Sequence[Sequence[int]], *, keep: bool = False) -> Line:
        """Pack prompts and what follows them; what several prompts share stands there once.

        Args:
            prompts: B prompts.
            tails: B token lists that follow them, empty allowed.
            keep: remember keys and values, for decoding.
        """
        uses = Counter(prompt.prefix for prompt in prompts)
        prefixes = {p.prefix: p for p in prompts if p.shared and uses[p.prefix] > 1}
        index = {prefix: place for place, prefix in enumerate(prefixes)}
        ids: list[int] = []
        positions: list[Tensor] = []
        images: list[tuple[str, ImageInput]] = []
        for prompt in prefixes.values():
            ids += prompt.ids[: prompt.shared]
            positions.append(prompt.positions[:, : prompt.shared])
            images += prompt.images
        rows, rests = [], []
        for prompt, tail in zip(prompts, tails, strict=True):
            prefix = index.get(prompt.prefix)
            start = 0 if prefix is None else prompt.shared
            if prefix is None:
                images += prompt.images
            ids += [*prompt.ids[start:], *tail]
            after = prompt.positions[:, -1:] + torch.arange(1, len(tail) + 1)
            positions += [prompt.positions[:, start:], after]
            rests.append(len(prompt.ids) - start)
            rows.append((prefix, rests[-1] + len(tail)))
        return Line(
            torch.tensor(ids, device=self.device),
            torch.cat(positions, dim=1).to(self.device),
            tuple(images),
            Packing([prompt.shared for prompt in prefixes.values()], rows, device=self.device, keep=keep),
            tuple(rests),
        )

    def hidden_states(self, line: Line) -> Tensor:
        """(N, H) last states of a line under the active adapters."""
        embeds = self.family.embed_tokens(line.ids)
        if line.images:
            features = self.features(line.images)
            places = (line.ids == self.family.image_token_id)[:, None]
            embeds = embeds.masked_scatter(places, torch.cat([features[key].to(embeds) for key, _ in line.images]))
        return self.family.hidden_states(embeds, line.positions, line.packing)

    # -- scoring -------------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.banned.device

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[Sequence[int]], temperature: float = 1.0
    ) -> Scores:
        """Log-probabilities of completions under the active adapters, with gradient.

        A row's values do not depend on the rows beside it, whatever they share.

        Args:
            prompts: B prompts.
            completions: B token lists, each ending with the end token where the model stopped by itself.
            temperature: of the distribution that is scored; the one that was sampled from.
        """
        line = self.line(prompts, [ids[:-1] for ids in completions])  # nothing is predicted from a last token
        lengths = torch.tensor([len(ids) for ids in completions])
        completion_mask = (torch.arange(int(lengths.max())) < lengths[:, None]).to(self.device)
        first = torch.tensor(line.packing.row_starts) + torch.tensor(line.rests) - 1
        predicts = (first[:, None] + torch.arange(int(lengths.max()))).to(self.device)[completion_mask]
        targets = torch.tensor([token for ids in completions for token in ids], device=self.device)
        logps, entropy = token_logps(
            self.hidden_states(line).index_select(0, predicts),
            targets,
            self.family.logits,
            banned=self.banned,
            temperature=temperature,
        )
        logps, entropy = unflatten(logps, completion_mask), unflatten(entropy, completion_mask)
        return Scores(logps, entropy, completion_mask, len(line.ids))


def _lora_forward(layer: LoraLinear, x: Tensor) -> Tensor:
    """PEFT's forward of a linear layer, by `lora_linear` where that is the same: plain LoRA over frozen weights."""
    names = [name for name in layer._active_adapter if name in layer.lora_A]
    if layer._disable_adapters or not names:
        return layer.base_layer(x)
    weight, bias = layer.base_layer.weight, layer.base_layer.bias
    updates = [(layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]) for name in names]
    strange = layer.merged or layer.lora_variant or any(layer.lora_bias[name] for name in names)
    mixed = {weight.dtype, *(factor.dtype for update in updates for factor in update[:2])} != {x.dtype}
    if strange or mixed or weight.requires_grad or torch.is_autocast_enabled(x.device.type):
        return type(layer).forward(layer, x)
    return lora_linear(x, weight, bias, updates)


def common_length(sequences: Sequence[Sequence[int]]) -> int:
    """Length of the common beginning, such that every sequence goes on for at least one more."""
    limit = min(map(len, sequences)) - 1
    columns = zip(*(sequence[:limit] for sequence in sequences), strict=True)
    return next((place for place, column in enumerate(columns) if len(set(column)) > 1), limit)


def unflatten(values: Tensor, mask: Tensor) -> Tensor:
    """(N,) values back into the True places of a (B, T) mask, zero elsewhere; rows first, as masking took them."""
    return values.new_zeros(mask.shape).masked_scatter(mask, values)
