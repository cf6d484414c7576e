"""Taking in an adapter that PEFT saved: its tensors decide what it changes, and each is met with the base's layer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from artifacts.adapter_checks import AdapterError, check_config, check_header, check_tensors, foreign
from artifacts.adapter_files import CONFIG, WEIGHTS, check_no_pickle, read_json, write_adapter
from artifacts.base_origin import base_name
from artifacts.layer_names import PREFIX, core, meant, unprefixed
from artifacts.lora_config import alpha_of, exact_config

FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(?:\.(?P<adapter>[^.]+))?\.weight")
"""A factor's name as versions of PEFT have written it: the adapter's own name may stand in it."""
TASKS = (None, "CAUSAL_LM", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION")
"""Tasks that add no head of their own."""


@dataclass(frozen=True)
class Base:
    """A base in memory, as far as adapters meet it.

    Attributes:
        fingerprint: of its weights.
        modules: name -> (m, n) of every linear layer that an adapter may change.
        outside: likewise, of those that read pictures: they run once per picture, whichever adapters act.
        tensors: name -> tensor of all that it holds.
        origin: see `artifacts.base_origin`; None where it is not known.
    """

    fingerprint: str
    modules: Mapping[str, tuple[int, int]]
    outside: Mapping[str, tuple[int, int]]
    tensors: Mapping[str, Tensor]
    origin: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Adopted:
    """What became of an adapter.

    Attributes:
        folder: where it was written.
        called: what it calls its base; empty where it does not say.
        translated: layers that the base calls otherwise, of `layers`.
        layers: that it changes.
        dropped: tensors of the base that stood in it unchanged.
    """

    folder: Path
    called: str
    translated: int
    layers: int
    dropped: tuple[str, ...]


def adopt(folder: Path, out: Path, *, base: Base, specialty: str | None = None) -> Adopted:
    """Copy an adapter that PEFT saved, checked, into a folder with a manifest, so that it can be merged and examined.

    What it changes is told by the names of its tensors, not by `target_modules` and its kin, which mean something else
    on a model whose layers are called otherwise. Rank and alpha of each layer are read under the name that the file
    has, as PEFT read them in training, and written down under the base's name.

    Args:
        folder: with adapter_config.json and adapter_model.safetensors.
        out: the new adapter folder; replaced if it stands.
        base: that it was trained on, for which the caller vouches: PEFT's files do not tell.
        specialty: what it is an expert of.

    Raises:
        AdapterError: it is no plain LoRA, damaged, a pickle, or does not fit the base.
        OSError: the disk is full or the folder cannot be written.
    """
    check_no_pickle(folder)
    if not (folder / WEIGHTS).is_file():
        raise AdapterError(f"{folder}: no {WEIGHTS}; is this an adapter saved by PEFT?")
    config = read_json(folder / CONFIG)
    check_config(config, str(folder))
    if config.get("task_type") not in TASKS:
        raise AdapterError(
            f"{folder}: task_type is {config['task_type']!r}, which puts another head on the base; allowed: "
            + ", ".join(map(str, TASKS))
        )
    check_header(folder / WEIGHTS)
    try:
        tensors = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise AdapterError(f"{folder / WEIGHTS}: not a valid safetensors file: {error}") from error
    factors = {name: FACTOR.fullmatch(name) for name in tensors}
    dropped = [name for name, match in factors.items() if not match]
    for name in dropped:
        check_unchanged(name, tensors[name], base, folder)
    names = layer_names([match["module"] for match in factors.values() if match], base, folder)
    found: dict[str, Tensor] = {}
    for name, match in factors.items():
        if match:
            key = f"{PREFIX}{names[match['module']]}.lora_{match['side']}.weight"
            if key in found:
                raise AdapterError(f"{folder}: {name} comes twice; does the file hold several adapters?")
            found[key] = tensors[name]
    pairs = check_tensors(found, str(folder))
    check_shapes({module: (B.shape[0], A.shape[1]) for module, (A, B) in pairs.items()}, base, str(folder))
    ranks = {module: A.shape[0] for module, (A, _) in pairs.items()}
    alphas = {own: alpha_of(config, meant(name), ranks[own], str(folder)) for name, own in names.items()}
    kept = {"task_type": "CAUSAL_LM", "use_rslora": bool(config.get("use_rslora"))}
    if base.origin is not None:
        kept["base_model_name_or_path"] = base_name(base.origin)
    called = str(config.get("base_model_name_or_path") or "")
    translated = sum(unprefixed(name) != own for name, own in names.items())
    manifest = {
        "kind": "adopted",
        "base_fingerprint": base.fingerprint,
        "specialty": specialty,
        "extra": {"base": base.origin, "adopted": {"called": called, "translated": translated, "dropped": dropped}},
    }
    write_adapter(out, exact_config(ranks, alphas, kept), found, manifest)
    return Adopted(out, called, translated, len(ranks), tuple(dropped))


def layer_names(modules: Iterable[str], base: Base, folder: Path) -> dict[str, str]:
    """Name in the file -> the base's name of the same layer.

    Raises:
        AdapterError: the base has none, or several, of this name, or it reads pictures.
    """
    index: dict[str, list[str]] = {}
    for name in base.modules:
        index.setdefault(core(name), []).append(name)
    names: dict[str, str] = {}
    for module in dict.fromkeys(modules):
        own = unprefixed(module)
        found = [own] if own in base.modules else index.get(core(own), [])
        if len(found) != 1:
            raise AdapterError(f"{folder}: {module}: {absent(own, found, base)}")
        names[module] = found[0]
    spelled = {own: name for name, own in names.items()}
    for name, own in names.items():
        if spelled[own] != name:
            raise AdapterError(f"{folder}: {name} and {spelled[own]} are both the base's {own}; which one is meant?")
    return names


def absent(module: str, found: list[str], base: Base) -> str:
    """Why a layer cannot be met, in words."""
    if found:
        return f"the base has {len(found)} layers of this name: {', '.join(found[:3])}"
    if any(core(name) == core(module) for name in base.outside):
        return (
            "reads pictures, whose features are computed once, whichever adapters act; train the expert with "
            "exclude_modules set to the picture tower, such as '.*visual.*'"
        )
    if any(core(name) == core(f"{module}.weight") for name in base.tensors):
        return "is no linear layer of the base; train the expert on linear layers alone, without embeddings"
    some = ", ".join(list(base.modules)[:2])
    return f"the base has no such layer (it has {some}, …); was it trained on another model?"


def check_shapes(shapes: Mapping[str, tuple[int, int]], base: Base, place: str) -> None:
    """Refuse updates that are not of the base's own layers, under the base's own names.

    Args:
        shapes: module -> (m, n) of the update.
        base: that they are for.
        place: the adapter, for the message.

    Raises:
        AdapterError: names the first layer that is not there, or has another shape.
    """
    for module, shape in shapes.items():
        if module not in base.modules:
            raise AdapterError(
                f"{place}: {module}: {absent(module, [], base)} `python -m merge adopt` translates older names"
            )
        if base.modules[module] != shape:
            raise AdapterError(
                f"{place}: {module}: the update is {shape}, the base's layer {base.modules[module]}; was it trained on "
                "a model of another size?"
            )


def check_unchanged(name: str, tensor: Tensor, base: Base, folder: Path) -> None:
    """Refuse what is neither a factor nor, equal but for its precision, a tensor of the base.

    Raises:
        AdapterError: says what it is, and the remedy.
    """
    found = [base.tensors[own] for own in base.tensors if core(own) == core(name)]
    if len(found) != 1:
        raise AdapterError(f"{folder}: {foreign(name)}")
    own = found[0].detach().cpu()
    if own.shape != tensor.shape:
        raise AdapterError(
            f"{folder}: {name} is {tuple(tensor.shape)}, the base's {tuple(own.shape)}; was the vocabulary resized? "
            "Train the expert without resizing it"
        )
    if not torch.equal(own.to(tensor.dtype), tensor):
        raise AdapterError(
            f"{folder}: {name} is a whole tensor that differs from the base's; it was trained beside the LoRA, or the "
            "adapter belongs to another base. Train the expert as plain LoRA, with it frozen"
        )
