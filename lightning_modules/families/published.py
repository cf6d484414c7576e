"""Base of the families that load a checkpoint in the hub's layout.

What belongs to the checkpoint comes from it: picture limits, means and patches, chat template, control and end tokens,
context. A family says which `model_type` it takes, and how its parts are called.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from transformers import AutoImageProcessor, BaseImageProcessor, PreTrainedModel
from typing_extensions import override

from artifacts.base_origin import AUTO_CLASSES
from artifacts.stored_weights import read_stored
from configs.checkpoints import CheckpointError
from guards.ranges import Ranged
from lightning_modules.families.base import PictureInput
from lightning_modules.families.chat_template import ChatTemplate
from lightning_modules.families.chatting import ChattingFamily
from lightning_modules.families.checkpoint import Checkpoint, first_line
from lightning_modules.families.nf4 import Quantise
from lightning_modules.packing import ATTENTION


class PublishedFamily(ChattingFamily):
    """A checkpoint in the hub's layout: a folder, or a repository's id.

    Attributes:
        model_types: what its config.json may say; `configs.checkpoints` finds the family by it.
        model_class: of transformers.
        attention_kinds: entries of `layer_types` that the packed attention keeps exactly.
        place: the token whose embedding a picture's feature replaces; None in a language model.
        checkpoint: where it lies; None where a subclass makes the model by itself.
        commit: of the hub's repository; None for a folder.
        image_processor: its picture processor; None in a language model.
    """

    model_types: ClassVar[tuple[str, ...]] = ()
    model_class: ClassVar[type[PreTrainedModel]]
    attention_kinds: ClassVar[tuple[str, ...]] = ("full_attention",)
    place: str | None = None
    image_processor: BaseImageProcessor | None = None
    checkpoint: Checkpoint | None = None
    commit: str | None = None

    @dataclass(frozen=True)
    class Config(Ranged):
        """Which checkpoint, and in what precision."""

        path: str
        """Local folder or hub id."""
        revision: str = "main"
        """Branch, tag or commit of the hub repository; the commit that it led to is recorded."""
        dtype: Literal["float32", "bfloat16"] = "bfloat16"
        """Precision of the frozen weights; adapters are float32 always."""
        quantize: Quantise = "none"
        """Four bits per weight of the language model's linear layers."""
        system: str | None = None
        """System prompt; empty leaves the system turn out, null is what the checkpoint's template writes."""

    def __init__(
        self, config: Config, *, weights: Path | None = None, outline: bool = False, blocks_in_files: bool = False
    ) -> None:
        """Load tokenizer, picture processor and model.

        Args:
            config: see `Config`.
            weights: folder of a base that this code base trained; its parameters replace the loaded ones.
            outline: leave the weights out, for who only writes prompts and preprocesses pictures.
            blocks_in_files: leave the blocks' weights where they lie, for who reads parts of them.

        Raises:
            CheckpointError: the checkpoint is not there, not whole, or not of this family.
        """
        super().__init__()
        self.weights = weights
        self.config = config
        self._build(weights, outline, blocks_in_files)
        self.hidden_size = self.model.config.get_text_config().hidden_size
        self.chat = self._chat()
        self.image_token_id = -1 if self.place is None else self._token_id(self.place)
        self.to_input = self._picture_input()
        self.banned_token_ids = self._banned()
        self._set_attention()
        if weights is not None and not outline:
            self.load_weights(weights, blocks_in_files=blocks_in_files)

    # -- parts of the checkpoint -------------------------------------------------------------------------------------

    def _build(self, weights: Path | None, outline: bool, blocks_in_files: bool) -> None:
        """Set `tokenizer`, `template`, `image_processor` and `model`."""
        config = self.config
        self.checkpoint = Checkpoint(config.path, config.revision)
        stated, self.commit = self.checkpoint.config()
        if self.commit is not None:  # so that nothing that is read later is of another commit
            self.config = replace(config, revision=self.commit)
            self.checkpoint = replace(self.checkpoint, revision=self.commit)
        self._refuse_others(stated)
        self.tokenizer = self.checkpoint.tokenizer()
        self.template = self.checkpoint.chat_template(self.tokenizer)
        if self.place is not None:
            try:
                self.image_processor = AutoImageProcessor.from_pretrained(
                    **self.checkpoint.source(), backend="pil", **self._picture_settings()
                )
            except (OSError, ValueError, ImportError) as error:
                raise CheckpointError(
                    f"{self.config.path}: its picture processor cannot be read: {first_line(error)}; is "
                    "preprocessor_config.json there?"
                ) from error
        if outline:
            self.model = self.checkpoint.outline(self.model_class)
        else:
            dtype = getattr(torch, self.config.dtype)
            self.model = self.checkpoint.model(self.model_class, dtype, in_files=blocks_in_files).eval()
            if blocks_in_files:
                read_stored(self.model, but=self.block_parameters())

    def _refuse_others(self, stated: dict[str, Any]) -> None:
        """Refuse another model's checkpoint, and weights that were quantised already."""
        own = stated["model_type"]
        if own not in self.model_types:
            raise CheckpointError(
                f"{self.config.path}: its model_type is {own!r}, and {type(self).__name__} takes "
                f"{', '.join(self.model_types)}; write model: {self.config.path} alone, and the family is found by it"
            )
        if "quantization_config" in stated:
            method = stated["quantization_config"].get("quant_method", "an unknown method")
            raise CheckpointError(
                f"{self.config.path}: its weights were quantised by {method}; take the checkpoint in bfloat16, and set "
                "quantize: nf4 to have four bits in memory"
            )

    def _picture_settings(self) -> dict[str, Any]:
        """Settings of the picture processor that replace the checkpoint's."""
        return {}

    def _chat(self) -> ChatTemplate:
        """How chats are written."""
        return ChatTemplate(self.tokenizer, self.template, self.place, parts=self.place is not None)

    @abstractmethod
    def _picture_input(self) -> PictureInput:
        """What turns pictures into the vision tower's input."""

    def _token_id(self, token: str) -> int:
        """A token's id.

        Raises:
            CheckpointError: the tokenizer lacks it.
        """
        found = self.tokenizer.get_vocab().get(token)
        if found is None:
            raise CheckpointError(f"{self.config.path}: the tokenizer has no {token}; is it another model's?")
        return found

    def _banned(self) -> tuple[int, ...]:
        """Control tokens but for those that end a turn, and the rows of the head that stand for no token."""
        pictures = set() if self.place is None else {self.image_token_id}
        rows = set(range(self.model.get_output_embeddings().weight.shape[0]))
        unused = rows - set(self.tokenizer.get_vocab().values())
        # some tokenizers have more control tokens than the head has rows
        return tuple(sorted((self._control & rows | pictures | unused) - set(self.end_token_ids)))

    @cached_property
    def _control(self) -> set[int]:
        """Tokens that no text is made of."""
        added = self.tokenizer.added_tokens_decoder
        return {number for number, token in added.items() if token.special} | set(self.tokenizer.all_special_ids)

    def _set_attention(self) -> None:
        """Give the language model the packed attention.

        Raises:
            CheckpointError: it has layers that see less than everything before them.
        """
        text = self.model.config.get_text_config()
        kinds = getattr(text, "layer_types", None) or (
            ("full_attention",) if getattr(text, "sliding_window", None) is None else ("sliding_attention",)
        )
        strange = sorted(set(kinds) - set(self.attention_kinds))
        if strange:
            raise CheckpointError(
                f"{self.config.path}: has layers of {', '.join(strange)}, and {type(self).__name__} computes "
                f"{', '.join(self.attention_kinds)} alone"
            )
        inner = text is not self.model.config
        self.model.set_attn_implementation({"text_config": ATTENTION} if inner else ATTENTION)

    # -- the family's interface --------------------------------------------------------------------------------------

    @property
    @override
    def origin(self) -> dict[str, Any]:
        if self.checkpoint is None:
            return super().origin
        said = {
            "model_type": self.model.config.model_type,
            "auto_class": AUTO_CLASSES[self.place is None],
            "commit": self.commit,
            "pictures": self._picture_facts(),
        }
        return {**super().origin, "checkpoint": said}

    def _picture_facts(self) -> dict[str, Any]:
        """The settings of the picture processor in effect, and which of them are not the checkpoint's own."""
        if self.image_processor is None:
            return {}
        stated = self.image_processor.to_dict()
        kept = ("size", "image_mean", "image_std", "patch_size", "merge_size", "resample", "rescale_factor")
        kept += ("max_image_size", "do_image_splitting", "min_patches", "max_patches")
        facts = {key: plain(stated[key]) for key in kept if stated.get(key) is not None}
        return {**facts, "replaced": sorted(self._picture_settings())}

    @property
    @override
    def eos_token_id(self) -> int:
        return self._end_id

    @cached_property
    @override
    def end_token_ids(self) -> tuple[int, ...]:
        stated = self.model.generation_config.eos_token_id
        others = [stated] if isinstance(stated, int) else stated or []
        # without a generation_config.json transformers takes a number from the class, which may be a word's
        return tuple(dict.fromkeys([self.eos_token_id, *(token for token in others if token in self._control)]))

    @cached_property
    def _end_id(self) -> int:
        return self._token_id(self.chat.end)

    @property
    @override
    def pad_token_id(self) -> int:
        own = self.tokenizer.pad_token_id
        return self.eos_token_id if own is None else own

    @property
    @override
    def context(self) -> int:
        return min(super().context, self.tokenizer.model_max_length)


def plain(value: Any) -> Any:
    """A setting in JSON's types."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return int(value) if isinstance(value, IntEnum) else value


def own_parameters(module: nn.Module, *without: nn.Module) -> list[nn.Parameter]:
    """Parameters of a module but for those of parts of it."""
    left_out = {id(parameter) for part in without for parameter in part.parameters()}
    return [parameter for parameter in module.parameters() if id(parameter) not in left_out]
