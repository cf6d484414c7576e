"""A dense checkpoint read as its users will: the precision that it declares, and what transformers makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from artifacts.adapter_files import AdapterError, base_fingerprint, read_json
from artifacts.layer_names import core
from artifacts.tensor_stream import DTYPES
from merge.base_weights import Weight

CONFIG = "config.json"
KEYS = ("dtype", "torch_dtype")
"""Names of the precision in a configuration; versions of transformers read one or the other."""


def declaring(config: Mapping[str, Any], dtypes: Iterable[str]) -> dict[str, Any]:
    """A model's configuration that says in what precision its changed weights are, so that loading rounds none.

    Args:
        config: the content of config.json.
        dtypes: of the changed weights, safetensors' names.

    Returns:
        The same where it says so already; else with `dtype` and `torch_dtype`, those of parts included.
    """
    wanted = set(dtypes)
    dtype = DTYPES[wanted.pop()] if len(wanted) == 1 else torch.float64 if "F64" in wanted else torch.float32
    name = str(dtype).removeprefix("torch.")

    def set_in(part: Mapping[str, Any]) -> dict[str, Any]:
        inner = {key: isinstance(v, Mapping) and key.endswith("_config") and key != "quantization_config"
                 for key, v in part.items()}  # fmt: skip
        return {key: set_in(v) if inner[key] else name if key in KEYS else v for key, v in part.items()}

    changed = set_in(config)
    return changed if changed == config and any(key in config for key in KEYS) else changed | dict.fromkeys(KEYS, name)


def reloaded(folder: Path) -> tuple[nn.Module, list[str]] | None:
    """The model that plain transformers makes of a folder, on the CPU and in the precision that it declares.

    Returns:
        The model, and the names that it wants and the folder lacks; None where transformers knows no such model.

    Raises:
        AdapterError: transformers knows the model and cannot load it.
    """
    if not (folder / CONFIG).is_file() or "model_type" not in (config := read_json(folder / CONFIG)):
        return None
    import transformers

    named = config.get("architectures")
    known = str(config["model_type"]) in transformers.CONFIG_MAPPING and isinstance(named, list) and named
    model_class = getattr(transformers, str(named[0]), None) if known else None
    if not (isinstance(model_class, type) and issubclass(model_class, transformers.PreTrainedModel)):
        return None
    options = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
    try:
        model, told = model_class.from_pretrained(folder, **options)
    except (RuntimeError, ImportError, LookupError, TypeError, AttributeError) as error:
        raise AdapterError(f"{folder}: transformers cannot load it as {named[0]}: {error!s:.500}") from error
    return model, sorted(told["missing_keys"])


def fingerprints(base: Path, weights: list[Weight]) -> Iterator[str]:
    """Fingerprints under which a folder's weights may be known: as they are named there, or as transformers loads them.

    Args:
        base: the folder.
        weights: its tensors.
    """
    yield base_fingerprint((w.name, w.read()) for w in weights)
    if (found := reloaded(base)) is not None:
        model, _ = found
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            # Families name the transformers model `model`.
            yield base_fingerprint((f"model.{name}", p.detach().to(dtype)) for name, p in model.named_parameters())


def check_reloaded(folder: Path, weights: Iterable[Weight], expected: Callable[[Weight], tuple[Tensor, bool]]) -> str:
    """Read a checkpoint again, from its files and by transformers, and compare it tensor by tensor.

    Args:
        folder: with the new shards.
        weights: of the base.
        expected: a tensor as it must be, and whether it was changed.

    Returns:
        What it was read with.

    Raises:
        AdapterError: a tensor is not what was to be written, or not what transformers loads.
    """
    found = reloaded(folder)
    loaded: dict[str, list[Tensor]] = {}
    if found is not None:
        model, missing = found
        if missing:
            raise AdapterError(f"{folder}: {len(missing)} tensors that the model needs are not there: {missing[:3]}")
        for name, tensor in [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]:
            loaded.setdefault(core(name), []).append(tensor.detach())
    for weight in weights:
        tensor, changed = expected(weight)
        with safe_open(folder / weight.shard.name, framework="pt") as file:
            written = file.get_tensor(weight.name)
        if written.dtype != tensor.dtype or not torch.equal(written, tensor):
            raise AdapterError(
                f"{folder / weight.shard.name}: {weight.name} is not what was written; is the disk sound?"
            )
        if found is not None:
            check_loaded(f"{folder}: {weight.name}", loaded.get(core(weight.name), []), tensor, changed=changed)
    if found is None:
        return "safetensors"
    import transformers

    return f"transformers {transformers.__version__} {type(found[0]).__name__}"


def check_loaded(place: str, loaded: list[Tensor], tensor: Tensor, *, changed: bool) -> None:
    """Refuse a tensor of which transformers makes another one; one without a change may be rounded, or left aside."""
    same = [other for other in loaded if other.shape == tensor.shape]
    if not changed:
        wrong = same and not any(torch.equal(other, tensor.to(other.dtype)) for other in same)
    else:
        wrong = not any(torch.equal(other.double(), tensor.double()) for other in same)
    if wrong:
        reads = f"reads it as {same[0].dtype} with other values" if same else "does not read it"
        raise AdapterError(
            f"{place}: transformers {reads}; the checkpoint would not be the merged agent. Keep the LoRA"
        )


def written_config(path: Path, dtypes: Iterable[str]) -> str | None:
    """The text of a configuration that must say another precision than it does; None where it may stay."""
    config = read_json(path)
    changed = declaring(config, dtypes)
    return None if changed == config else json.dumps(changed, indent=2, ensure_ascii=False) + "\n"
