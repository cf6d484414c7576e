"""A checkpoint in the hub's layout, read strictly: every tensor by name, safetensors alone, nobody's code run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import cached_file
from transformers.utils.logging import disable_progress_bar

from artifacts.stored_weights import StoredParameter, in_files
from configs.checkpoints import CheckpointError, stated_config

SHOWN = 5
"""Names that an error lists."""
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
"""Where a checkpoint says which shard holds which tensor; the file of one without shards."""
ABSENT = {"_raise_exceptions_for_gated_repo": False, "_raise_exceptions_for_missing_entries": False}
"""How transformers is asked for a file that need not be there."""


@dataclass(frozen=True)
class Checkpoint:
    """Where a checkpoint lies: a folder, or a repository of the hub at a commit."""

    path: str
    revision: str = "main"

    def source(self) -> dict[str, Any]:
        """The arguments by which transformers reads it."""
        return {"pretrained_model_name_or_path": self.path, "revision": self.revision, "trust_remote_code": False}

    def config(self) -> tuple[dict[str, Any], str | None]:
        """What config.json says, and the commit that it is from where it is the hub's; errors as it raises them."""
        return stated_config(self.path, self.revision)

    def text(self, name: str) -> str | None:
        """The content of a file beside the weights; None where there is none."""
        place = cached_file(self.path, name, revision=self.revision, **ABSENT)
        return None if place is None else Path(place).read_text(encoding="utf-8")

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer.

        Raises:
            CheckpointError: it has none.
        """
        try:
            return AutoTokenizer.from_pretrained(**self.source())
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.path}: its tokenizer cannot be read: {first_line(error)}") from error

    def chat_template(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """Its chat template: the processor's where it has one of its own, else the tokenizer's.

        Raises:
            CheckpointError: it has none, or several under names.
        """
        template: Any = self.text("chat_template.jinja")
        if template is None and (stored := self.text("chat_template.json")) is not None:
            template = json.loads(stored).get("chat_template")
        template = tokenizer.chat_template if template is None else template
        if isinstance(template, Mapping):
            template = template.get("default")
        if not isinstance(template, str):
            raise CheckpointError(
                f"{self.path}: has no chat template (chat_template.jinja, chat_template.json or in "
                "tokenizer_config.json); is it a base model? Take the one that was tuned to chats (-Instruct, -it)"
            )
        return template

    def model(
        self, model_class: type[PreTrainedModel], dtype: torch.dtype, *, in_files: bool = False
    ) -> PreTrainedModel:
        """Load the weights.

        Args:
            model_class: of transformers, for this checkpoint's `model_type`.
            dtype: of the weights in memory.
            in_files: read none of them; parameters know where they lie, see `artifacts.stored_weights`.

        Raises:
            CheckpointError: a file is missing, or a tensor is missing, one too many or of another shape.
        """
        disable_progress_bar()  # the bar would run through the lines of whoever else speaks
        told_of = {"output_loading_info": True, "ignore_mismatched_sizes": True}  # refused below, with what else is
        try:
            given = self.stored(model_class) if in_files else {**self.source(), "use_safetensors": True}
            model, told = model_class.from_pretrained(**given, dtype=dtype, **told_of)
        except (OSError, RuntimeError, SafetensorError) as error:
            at_fault = next((f"{file.name}: " for file in self.weight_files() if not readable(file)), "")
            raise CheckpointError(
                f"{self.path}: {model_class.__name__} cannot be loaded from it: {at_fault}{first_line(error)}; are all "
                "of its safetensors files there, and whole?"
            ) from error
        refuse_strangers(self.path, model_class.__name__, told)
        if in_files:
            refuse_converted(self.path, model)
            if self.text("generation_config.json") is not None:
                model.generation_config = GenerationConfig.from_pretrained(self.path, revision=self.revision)
        return model

    def stored(self, model_class: type[PreTrainedModel]) -> dict[str, Any]:
        """The arguments by which transformers finds each weight's place without reading it."""
        config = model_class.config_class.from_pretrained(**self.source())
        places = [cached_file(self.path, name, revision=self.revision) for name in self.shard_names()]
        return {"pretrained_model_name_or_path": None, "config": config, "state_dict": in_files(map(Path, places))}

    def shard_names(self) -> list[str]:
        """The files that hold its weights, as its index says.

        Raises:
            CheckpointError: the index says nothing, or names a file that lies elsewhere.
        """
        listed = self.text(INDEX)
        if listed is None:
            return [SINGLE]
        try:
            names = sorted(set(json.loads(listed)["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{self.path}: {INDEX} says of no tensor where it is: {first_line(error)}") from error
        if strange := [name for name in names if Path(str(name)).name != name]:
            raise CheckpointError(f"{self.path}: {INDEX} names {strange[0]!r}, which is no file beside it")
        return names

    def weight_files(self) -> list[Path]:
        """Its safetensors files, as far as they are on this machine."""
        config = cached_file(self.path, "config.json", revision=self.revision, **ABSENT)
        return [] if config is None else sorted(Path(config).parent.glob("*.safetensors"))

    def outline(self, model_class: type[PreTrainedModel]) -> PreTrainedModel:
        """The model without weights."""
        with torch.device("meta"):
            return model_class(model_class.config_class.from_pretrained(**self.source()))


def refuse_strangers(path: str, model: str, told: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that is not exactly its model's.

    Args:
        path: of the checkpoint.
        model: name of the model's class.
        told: what transformers says about the loading; a head that is the embeddings' own is not missing there, and
            buffers that older versions stored are not unexpected.

    Raises:
        CheckpointError: names what is missing, too many or of another shape, and the likely cause.
    """
    missing, extra = sorted(told["missing_keys"]), sorted(told["unexpected_keys"])
    other = sorted(
        str(entry[0]) if isinstance(entry, tuple | list) else str(entry) for entry in told["mismatched_keys"]
    )
    if not (missing or extra or other):
        return
    parts = (
        [f"{len(missing)} tensors are missing, which would be drawn at random: {listed(missing)}"] if missing else []
    )
    parts += [f"{len(extra)} tensors are not this model's: {listed(extra)}"] if extra else []
    parts += [f"{len(other)} tensors have another shape: {listed(other)}"] if other else []
    if missing and all(name.endswith("lm_head.weight") for name in missing):
        cause = "config.json should say tie_word_embeddings: true, if the head is the embeddings' own"
    elif any(".lora_" in name or "base_layer" in name for name in extra):
        cause = "an adapter was saved without being merged; merge it first"
    elif missing and extra:
        cause = "config.json and the weights are of different models, or of different versions of transformers"
    elif extra:
        cause = "config.json is of a smaller model, or weights of another one lie in the same folder"
    else:
        cause = "a shard or its index is incomplete, or config.json is of a larger model"
    raise CheckpointError(f"{path}: is not a whole {model}: {'; '.join(parts)}. Likely: {cause}")


def refuse_converted(path: str, model: PreTrainedModel) -> None:
    """Refuse to leave weights in their files that are not in them as the model has them.

    Raises:
        CheckpointError: names one.
    """
    made = [name for name, p in model.named_parameters() if p.is_meta and not isinstance(p, StoredParameter)]
    if made:
        raise CheckpointError(
            f"{path}: transformers makes {len(made)} weights out of others, such as {made[0]}, so that no device can "
            "read its part alone; save the checkpoint anew with this version of transformers, or train with "
            "trainer.strategy=ddp"
        )


def readable(file: Path) -> bool:
    """Whether a safetensors file is whole, as far as its header tells."""
    try:
        with safe_open(file, framework="pt"):
            return True
    except (SafetensorError, OSError):
        return False


def listed(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
