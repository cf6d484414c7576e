"""Which adapters are plain LoRA, W + s B A with finite factors, so that their updates may be added."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from artifacts.tensor_stream import DTYPES

MAX_BYTES = 32 * 2**30
"""Largest accepted adapter file, bytes: rank 256 on every linear layer of a 70B model in fp32 is 13 GiB."""
MAX_HEADER_BYTES = 16 * 2**20
"""Largest accepted safetensors header, bytes: 65,536 entries take about 10 MiB."""
MAX_TENSORS = 65_536

TENSOR_NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")

HARMLESS_KEYS = frozenset(
    """task_type peft_type auto_mapping peft_version base_model_name_or_path revision inference_mode r target_modules
    exclude_modules lora_alpha lora_dropout fan_in_fan_out use_rslora init_lora_weights layers_to_transform
    layers_pattern rank_pattern alpha_pattern megatron_core eva_config qalora_group_size runtime_config""".split()
)
"""Settings that leave the update at s B A (or that are read where s is computed)."""

REASONS = {
    "use_dora": "DoRA rescales the base's own columns, so its update is not B A",
    "bias": "trained biases lie outside B A",
    "lora_bias": "trained biases lie outside B A",
    "modules_to_save": "whole modules were trained beside the LoRA",
    "trainable_token_indices": "token embeddings were trained beside the LoRA",
    "layer_replication": "the adapter belongs to a base with repeated layers",
    "target_parameters": "updates of bare parameters have another layout",
}

FOREIGN = {
    "lora_embedding_": "an update of the embeddings; train the expert with linear layers alone in target_modules",
    "lora_magnitude_vector": "a magnitude of DoRA; train the expert with use_dora=False",
    ".bias": "a trained bias; train the expert with bias='none' and lora_bias=False",
    "token_adapter": "trained token embeddings; train the expert without trainable_token_indices",
    "modules_to_save": "a module that was trained whole; train the expert without modules_to_save",
}
"""Parts of tensor names -> what the tensor is, and the remedy."""

READING = ("tokenizer_sha256", "chat_template_sha256")
"""What a manifest's `extra` records of how an expert reads text; absent from those that were not trained here."""

INITS_THAT_KEEP_THE_BASE = (True, False, None, "gaussian", "eva", "orthogonal")


class AdapterError(ValueError):
    """An adapter folder that is incomplete, damaged, unsafe, or not a plain LoRA of the expected base."""


def check_config(config: Mapping[str, Any], place: str) -> None:
    """Refuse every variant whose update is more than s B A; unknown settings that are switched on count as such.

    Args:
        config: the content of adapter_config.json.
        place: the folder, for the message.

    Raises:
        AdapterError: names the setting and its value.
    """
    if str(config.get("peft_type")) not in ("LORA", "PeftType.LORA"):
        raise AdapterError(f"{place}: peft_type is {config.get('peft_type')!r}; only 'LORA' can be merged")
    init = config.get("init_lora_weights", True)
    if init not in INITS_THAT_KEEP_THE_BASE:
        raise AdapterError(
            f"{place}: init_lora_weights={init!r} moved part of the base into the adapter, so that B A is not the "
            f"update; allowed: {', '.join(map(repr, INITS_THAT_KEEP_THE_BASE))}. "
            "PEFT's `path_initial_model_for_weight_conversion` saves such an adapter as a plain LoRA"
        )
    for key, value in config.items():
        if key in HARMLESS_KEYS or not value or (key == "bias" and value == "none"):
            continue
        reason = REASONS.get(key, "a setting of which this code does not know that it leaves the update at B A")
        raise AdapterError(f"{place}: {key}={value!r}: {reason}; train the expert as plain LoRA without it")


def reading(tokenizer: str, prompt: Sequence[int]) -> dict[str, str]:
    """What to record of how an expert reads text, so that it is merged only with those that read alike.

    Args:
        tokenizer: its JSON, `tokenizer.backend_tokenizer.to_str()`.
        prompt: tokens of some fixed question in its chat template, system prompt included.

    Choice: the template is known by what it makes of a question, wherever it is written down.
    """
    rules = {key: value for key, value in json.loads(tokenizer).items() if key not in ("truncation", "padding")}
    contents = (json.dumps(rules, sort_keys=True), json.dumps(list(prompt)))
    return {key: hashlib.sha256(text.encode()).hexdigest() for key, text in zip(READING, contents, strict=True)}


def check_reading(extras: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Refuse experts of which two read text differently.

    Args:
        extras: place of an adapter -> `extra` of its manifest.

    Returns:
        What all that record it agree on, and the places that record nothing, or not all; they are taken as they are.

    Raises:
        AdapterError: names both places and what differs, or the place of a record that is none.
    """
    first: dict[str, tuple[str, str]] = {}
    for place, extra in extras.items():
        if not isinstance(extra, dict | None):
            raise AdapterError(f"{place}: extra must be an object or null in the manifest, got {extra!r:.200}")
        for key in READING:
            if (found := (extra or {}).get(key)) is None:
                continue
            if not isinstance(found, str) or not re.fullmatch("[0-9a-f]{64}", found):
                raise AdapterError(f"{place}: {key} must be 64 hexadecimal digits in the manifest, got {found!r:.100}")
            before, expected = first.setdefault(key, (place, found))
            if found != expected:
                raise AdapterError(
                    f"{place}: {key} is {found!r:.100}, that of {before} is {expected!r:.100}; experts that read text "
                    "differently cannot share one agent. Was the model's revision or its system prompt changed between?"
                )
    silent = [place for place, extra in extras.items() if any((extra or {}).get(key) is None for key in READING)]
    return {key: found for key, (_, found) in first.items()}, silent


def check_header(path: Path) -> None:
    """Read the table of contents of a safetensors file and bound what loading it may cost.

    Raises:
        AdapterError: the file is too large, truncated, or its header is larger than any adapter needs.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise AdapterError(f"{path}: {size} bytes, more than the {MAX_BYTES} that a LoRA may take")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(MAX_HEADER_BYTES, size - 8):
            raise AdapterError(
                f"{path}: the header claims {length} bytes of a file of {size} (limit {MAX_HEADER_BYTES}); "
                "the file is damaged or was made to exhaust memory"
            )
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise AdapterError(f"{path}: the header is not JSON ({error}); is this a safetensors file?") from error
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise AdapterError(f"{path}: the header must be a table of at most {MAX_TENSORS} tensors")


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor holds neither NaN, which is both of its bounds at once, nor infinity."""
    return not tensor.numel() or all(bound.isfinite() for bound in tensor.aminmax())


def foreign(name: str) -> str:
    """What a tensor is that is no factor of a linear layer, and what to do about it, in words."""
    reason = next((reason for part, reason in FOREIGN.items() if part in name), "no part of a plain LoRA")
    return f"tensor {name!r} is not of the form base_model.model.<module>.lora_A|B.weight: {reason}"


def check_tensors(tensors: Mapping[str, Tensor], place: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Pair the factors and refuse what is no LoRA of linear layers.

    Args:
        tensors: as in adapter_model.safetensors.
        place: the folder, for the message.

    Returns:
        Module name -> (A (r, n), B (m, r)), sorted by name.

    Raises:
        AdapterError: a foreign tensor, a missing partner, shapes that do not fit, integers, NaN or infinity.
    """
    sides: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = TENSOR_NAME.fullmatch(name)
        if not match:
            raise AdapterError(f"{place}: {foreign(name)}")
        if tensor.dim() != 2 or tensor.dtype not in DTYPES.values():
            raise AdapterError(
                f"{place}: {name} is {tensor.dtype} of shape {tuple(tensor.shape)}; expected a matrix of "
                + ", ".join(DTYPES)
            )
        if not is_finite(tensor):
            raise AdapterError(f"{place}: {name} holds NaN or infinity; did the training diverge?")
        sides.setdefault(match["module"], {})[match["side"]] = tensor
    if not sides:
        raise AdapterError(f"{place}: no LoRA factors at all; did target_modules match nothing?")
    pairs = {}
    for module, found in sorted(sides.items()):
        if set(found) != {"A", "B"}:
            raise AdapterError(f"{place}: {module} has lora_{next(iter(found))} but not its partner")
        A, B = found["A"], found["B"]
        if A.shape[0] != B.shape[1] or 0 in A.shape or 0 in B.shape:
            raise AdapterError(
                f"{place}: {module}: lora_A is {tuple(A.shape)}, lora_B is {tuple(B.shape)}; "
                "expected (r, n) and (m, r) with one r of at least 1"
            )
        pairs[module] = (A, B)
    return pairs
