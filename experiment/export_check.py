"""An export as others load it: by plain transformers, or by PEFT on top, against the model that was exported."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel
from PIL import Image
from torch import Tensor

from answering.trained import Trained
from artifacts.adapter_files import CONFIG, WEIGHTS, read_adapter
from datamodules.batch import Example
from lightning_modules.families.published import PublishedFamily
from lightning_modules.policy import Policy

ADAPTER_FILES = (CONFIG, WEIGHTS)
LIMIT = 1e-3
"""Largest difference of log-probabilities, in nats, that kernels may make in fp32."""
REPLY = "The heart is wide, so the answer is yes."
PLACEHOLDERS = ("mm_token_type_ids", "token_type_ids")
"""What some models are told besides the tokens: which of them are pictures'."""


@dataclass(frozen=True)
class Probe:
    """A question with a picture, if the model reads any, and what the exported model makes of it.

    Attributes:
        ids: (1, L) prompt and reply, as our family writes them.
        logits: (T, V) at the reply's tokens, in fp32.
        picture: what is shown; None to a language model.
        image_token_id: of the picture's places.
        auto_class: of transformers.
    """

    ids: Tensor
    logits: Tensor
    picture: Image.Image | None
    image_token_id: int
    auto_class: str


@torch.no_grad()
def with_adapters(trained: Trained, family: PublishedFamily) -> Probe:
    """What the model says in fp32, its adapters beside the weights.

    Args:
        trained: the base and its adapters.
        family: the base; turned into fp32.
    """
    policy = Policy(family.float())
    names = [f"stage{number}" for number, _ in enumerate(trained.adapters)]
    for name, path in zip(names, trained.adapters, strict=True):
        adapter = read_adapter(path, base_fingerprint=None)  # which was compared when the base was read
        policy.load_adapter(name, adapter.config, adapter.tensors)
    policy.activate(names)
    picture = None if family.image_processor is None else gradient()
    shown = () if picture is None else (picture,)
    prompt = policy.prompt(Example("p", shown, "Is this normal?", ("no", "yes"), "yes", "probe"), "")
    said = family.text_ids(REPLY)
    logits = family.logits(policy.completion_states([prompt], [said]).hidden)
    auto = family.origin.get("checkpoint", {}).get("auto_class", "AutoModelForImageTextToText")
    return Probe(torch.tensor([[*prompt.ids, *said]]), logits, picture, family.image_token_id, auto)


def gradient() -> Image.Image:
    """A picture that is not the same everywhere."""
    grey = Image.linear_gradient("L")
    return Image.merge("RGB", (grey, grey.rotate(90), grey.rotate(180)))


@torch.no_grad()
def plain_logits(folder: Path, probe: Probe, base: Trained | None = None) -> Tensor:
    """(T, V) logits of what plain transformers, and PEFT, load; nothing of this project has a part in it.

    Args:
        folder: of the export.
        probe: what is asked.
        base: of an adapter; None where the folder is a whole model.
    """
    auto = getattr(transformers, probe.auto_class)
    if base is None:
        model = auto.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    else:
        settings = base.origin["init_args"]
        revision = {"revision": settings["revision"]} if settings.get("revision") else {}
        stored = getattr(torch, settings.get("dtype", "bfloat16"))
        model = auto.from_pretrained(settings["path"], dtype=stored, **revision).float()
        model = PeftModel.from_pretrained(model, folder)
    model.eval()
    asked: dict[str, Any] = {"input_ids": probe.ids}
    forward = inspect.signature(model.get_base_model().forward if base is not None else model.forward).parameters
    if probe.picture is not None:
        processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True)
        seen = processor(images=[probe.picture], return_tensors="pt")
        asked |= {name: value for name, value in seen.items() if name in forward}
    places = (probe.ids == probe.image_token_id).int()
    asked |= {name: places for name in PLACEHOLDERS if name in forward}
    logits = model(**asked).logits[0].float()
    return logits[-len(probe.logits) - 1 : -1]


def compare(found: Tensor, expected: Probe, how: str, *, limited: bool = True) -> float:
    """Largest difference of log-probabilities.

    Args:
        found: (T, V) logits.
        expected: of what was exported.
        how: what the former are, for the message.
        limited: whether a difference above `LIMIT` is an error.

    Raises:
        RuntimeError: they are not the same model.
    """
    if found.shape != expected.logits.shape:
        raise RuntimeError(f"{how} it has logits of {tuple(found.shape)}, not {tuple(expected.logits.shape)}")
    difference = float((found.log_softmax(-1) - expected.logits.float().log_softmax(-1)).abs().max())
    if (limited and not difference <= LIMIT) or difference != difference:  # NaN
        raise RuntimeError(
            f"{how} it differs from what was exported: log-probabilities by {difference:.1e}; nothing was written"
        )
    return difference
