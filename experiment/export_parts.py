"""The parts of an export: the model with updates added, the chain of adapters as one, and what reads the questions."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import torch
from safetensors.torch import save_file

from answering.trained import Trained
from artifacts.adapter_files import CONFIG, WEIGHTS, AdapterError, base_fingerprint, open_adapter
from artifacts.base_files import read_base
from artifacts.base_origin import base_name, whole_path
from lightning_modules.families.found import family_of
from lightning_modules.families.published import PublishedFamily
from merge.factors import TaskVector, add
from merge.peft_layout import merged_config, task_vector_of, tensor_name
from merge.sources import filled

BESIDE = ("processor_config.json", "video_preprocessor_config.json")
"""Files of a checkpoint that its processor is read from, besides those that are written anew."""


def published_family(trained: Trained) -> PublishedFamily:
    """The base as it is stored, in no fewer bits.

    Raises:
        ValueError: transformers has no such model.
        AdapterError: an adapter is of another base.
    """
    origin = trained.origin
    if origin.get("weights") is not None:
        read_base(Path(str(origin["weights"])))
    packed = (origin.get("init_args") or {}).get("quantize", "none") != "none"
    family = family_of(origin, **({"quantize": "none"} if packed else {}))
    if not isinstance(family, PublishedFamily):
        raise ValueError(
            f"{trained.name}: its base is a {type(family).__name__}, whose picture tower transformers does not have; "
            "it can be asked and served here, and not exported"
        )
    found = base_fingerprint(family.named_parameters())
    for path in trained.adapters:
        open_adapter(path, base_fingerprint=found)
    return family


def summed(trained: Trained, family: PublishedFamily) -> TaskVector:
    """The updates of all stages as one: ranks add up, and layers that a stage does not touch count as zero.

    Args:
        trained: with at least one adapter.
        family: its base.

    Raises:
        AdapterError: an adapter is damaged, or changes layers that the base has not.
    """
    stored = [open_adapter(path, base_fingerprint=None) for path in trained.adapters]
    if any(adapter.config.get("fan_in_fan_out") for adapter in stored):
        raise AdapterError(f"{trained.name}: fan_in_fan_out stores the layers the other way round; not exported")
    pairs = zip(stored, trained.adapters, strict=True)
    vectors = {str(number): task_vector_of(adapter, str(path)) for number, (adapter, path) in enumerate(pairs)}
    vector = add(list(filled(vectors).values()))
    own = dict(family.model.named_modules())
    for module in vector:
        weight = getattr(own.get(module), "weight", None)
        if weight is None or tuple(weight.shape) != vector.shape(module):
            raise AdapterError(f"{trained.name}: changes {module}, which the base has not, or in another shape")
    return vector


def folded(trained: Trained, dtype: torch.dtype) -> tuple[PublishedFamily, float]:
    """The base with the updates added to its weights, each rounded once.

    Args:
        trained: what.
        dtype: of the weights.

    Returns:
        The family, and the share of the updates that rounding takes: |round(W + D) - W - D| / |D| over all layers.

    Raises:
        ValueError: an update is on weights that another layer has too.
    """
    family = published_family(trained)
    vector = summed(trained, family) if trained.adapters else None
    uses = Counter(id(weight) for _, weight in family.model.named_parameters(remove_duplicate=False))
    own, lost, size = dict(family.model.named_modules()), 0.0, 0.0
    with torch.no_grad():
        for module in vector or ():
            weight = own[module].weight
            if uses[id(weight)] > 1:
                raise ValueError(f"{trained.name}: {module} shares its weights with another layer; export --adapter")
            delta = vector.delta(module)
            wanted = weight.float() + delta
            weight.data = wanted.to(dtype)
            lost += (weight.double() - wanted.double()).square().sum().item()
            size += delta.double().square().sum().item()
        for parameter in family.parameters():  # and no buffer: what is computed from the settings is never rounded
            parameter.data = parameter.data.to(dtype)
    return family, (lost / size) ** 0.5 if size else 0.0


def write_adapter_files(folder: Path, vector: TaskVector, trained: Trained) -> int:
    """PEFT's two files of an update; returns the largest rank of a layer."""
    name = whole_path(base_name(trained.origin))
    template = open_adapter(trained.adapters[-1], base_fingerprint=None).config | {"base_model_name_or_path": name}
    ranks, tensors = {}, {}
    for module, factors in vector.items():
        ranks[module] = factors.rank
        tensors[tensor_name(module, "A")] = factors.A.contiguous()
        tensors[tensor_name(module, "B")] = factors.B.contiguous()
    config = merged_config(ranks, template)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    return max(ranks.values())


def write_model(folder: Path, family: PublishedFamily) -> None:
    """Weights and configuration, which says their precision."""
    family.model.save_pretrained(folder)


def write_reading(folder: Path, family: PublishedFamily) -> None:
    """Tokenizer with its template, and picture processor, with the settings under which was trained."""
    for name in BESIDE if family.checkpoint is not None else ():
        if (text := family.checkpoint.text(name)) is not None:
            (folder / name).write_text(in_effect(text, family), encoding="utf-8")
    family.tokenizer.chat_template = family.template
    family.tokenizer.save_pretrained(folder)
    if family.image_processor is not None:
        family.image_processor.save_pretrained(folder)


def in_effect(text: str, family: PublishedFamily) -> str:
    """A processor's file, whose part on pictures says what was in effect and not what the checkpoint said."""
    content = json.loads(text)
    if "image_processor" not in content or family.image_processor is None:
        return text
    stated = json.loads(family.image_processor.to_json_string())
    return json.dumps({**content, "image_processor": stated}, indent=2) + "\n"
