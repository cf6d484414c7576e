"""What a family of vision-language models must offer. One small file per family; nothing else may know its name."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from peft.tuners.lora.layer import LoraLayer
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_layers import GradientCheckpointingLayer

from artifacts.stored_weights import in_files
from lightning_modules.families.chat_template import Turn
from lightning_modules.families.nf4 import pack
from lightning_modules.functional.head import fp32_logits
from lightning_modules.packing import Attention


@dataclass(frozen=True)
class ImageInput:
    """One preprocessed picture.

    Attributes:
        pixels: what the vision tower takes; the shape is the family's own business.
        n_tokens: tokens that the picture adds to a prompt: placeholders, and what stands among them.
        grid: (frames, height, width) in patches where the family's positions need it, else None.
    """

    pixels: Tensor
    n_tokens: int
    grid: tuple[int, int, int] | None = None


class PictureInput(Protocol):
    """Turns pictures into the vision tower's input; it holds nothing of the model, so that it can be sent to workers.

    Attributes:
        most_tokens: tokens that no picture exceeds.
    """

    most_tokens: int

    def __call__(self, image: Image.Image) -> ImageInput:
        """The input of an RGB picture; errors as of `tokens`."""

    def tokens(self, width: int, height: int) -> int:
        """Tokens that a picture of that size, in pixels, adds to a prompt; see `ImageInput`.

        Raises:
            PictureError: the vision tower takes no picture of that size or shape.
        """


class VisionLanguageFamily(nn.Module):
    """A pretrained (or tiny random) vision-language model, seen through the few operations that training needs.

    Attributes:
        model: the transformers model whose language part carries LoRA adapters; PEFT wraps it in place.
        tokenizer: its tokenizer.
        lora_targets: regular expression over `model`'s module names: the language model's linear layers.
        image_token_id: the placeholder that pictures occupy in `input_ids`.
        banned_token_ids: vision and control tokens, excluded alike when sampling and when scoring.
        hidden_size: width H of the language model.
        to_input: turns an RGB picture into the vision tower's input. Its class can be imported by name: loaders send
            it to their workers.
        whole_pictures: a picture's tokens see each other in both directions, as of `seeing`.
        config: the settings that it was built with.
        weights: folder of a base that this code base trained, whose parameters it has; else None.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    lora_targets: str
    image_token_id: int
    banned_token_ids: tuple[int, ...]
    hidden_size: int
    to_input: PictureInput
    whole_pictures: bool = False
    config: Any = None
    weights: Path | None = None

    @property
    def origin(self) -> dict[str, Any]:
        """Where it is from, in JSON's types: class_path, init_args and trained weights; see `artifacts.base_origin`."""
        settings = asdict(self.config) if is_dataclass(self.config) else {}
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        return {"class_path": path, "init_args": settings, "weights": str(self.weights) if self.weights else None}

    @property
    def eos_token_id(self) -> int:
        """The token that ends an assistant turn."""
        return self.tokenizer.eos_token_id

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        """All tokens at which the model is done, the one that ends an assistant turn first; nothing follows any."""
        return (self.eos_token_id,)

    @property
    def context(self) -> int:
        """Tokens that prompt and completion may have together, as the model's configuration says."""
        return self.model.config.get_text_config().max_position_embeddings

    @property
    def pad_token_id(self) -> int:
        """The token that fills rows; masks go by length, never by this id."""
        return self.tokenizer.pad_token_id

    def text_ids(self, text: str) -> list[int]:
        """Tokenise a text by itself; control tokens in it stay plain text."""
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    def reply_ids(self, text: str) -> list[int]:
        """Tokenise an assistant's turn as it follows a prompt, its end token included."""
        return [*self.text_ids(text), self.eos_token_id]

    @abstractmethod
    def chat_ids(self, turns: Sequence[Turn], image_tokens: Sequence[int], *, system: str | None = None) -> list[int]:
        """Tokenise a chat up to where the assistant begins.

        Args:
            turns: what was said, the last of them by the user; control tokens in it stay plain text.
            image_tokens: tokens of each picture in order, as `PictureInput.tokens` counts them.
            system: system prompt in place of the family's own; empty leaves the system turn out.
        """

    def prompt_ids(
        self, text: str, image_tokens: Sequence[int], *, system: str | None = None, pictures_last: bool = False
    ) -> list[int]:
        """Tokenise one user turn up to where the assistant begins.

        Args:
            text: the question as `datamodules.prompts.prompt_text` writes it.
            image_tokens: as of `chat_ids`.
            system: likewise.
            pictures_last: the pictures stand after the text, not before it.
        """
        shown = [None] * len(image_tokens)
        turn = ("user", [text, *shown] if pictures_last else [*shown, text])
        return self.chat_ids([turn], image_tokens, system=system)

    @abstractmethod
    def next_turn_ids(self, text: str) -> list[int]:
        """Tokenise what follows the end token of an assistant turn: a user turn without pictures, as `prompt_ids`."""

    @abstractmethod
    def plain_ids(self, text: str, image_tokens: Sequence[int]) -> list[int]:
        """Tokenise pictures and then a text, outside any chat; arguments as of `prompt_ids`."""

    def continued_ids(self, prompt: Sequence[int], reply: Sequence[int], text: str) -> list[int]:
        """The prompt of a chat's next turn.

        It holds, token for token, the prompt before it; the reply's tokens as they were generated, thinking and tags
        included; the token that ends a turn, in whichever way the reply ended; and the next user turn. The reply
        is not decoded and tokenised again, for a text has many spellings in tokens and the model wrote one of them.

        Args:
            prompt: of the turn before, pictures included; these are shown once, in their turn.
            reply: what the model generated after it, with or without its end token.
            text: of the next user turn; control tokens in it stay plain text.
        """
        said = reply[:-1] if reply and reply[-1] in self.end_token_ids else reply
        return [*prompt, *said, self.eos_token_id, *self.next_turn_ids(text)]

    def preprocess(self, image: Image.Image) -> ImageInput:
        """Turn an RGB picture into the vision tower's input."""
        return self.to_input(image)

    @abstractmethod
    def encode_images(self, inputs: Sequence[ImageInput]) -> list[Tensor]:
        """Run the vision tower and projector: one (placeholders, H) tensor per picture.

        A family whose deeper layers take features too gives them in further columns; see `hidden_states`.
        """

    @abstractmethod
    def position_ids(self, ids: Sequence[int], grids: Sequence[tuple[int, int, int] | None]) -> Tensor:
        """Positions of one prompt's tokens.

        Args:
            ids: L token ids.
            grids: of each of its pictures in order.

        Returns:
            (A, L) int64, A = 1, or 3 where the family has the axes time, height and width. A completion token's
            position is the previous token's plus one on every axis.
        """

    @abstractmethod
    def embed_tokens(self, input_ids: Tensor) -> Tensor:
        """(N,) int64 -> (N, H) text embeddings."""

    @abstractmethod
    def hidden_states(self, inputs_embeds: Tensor, position_ids: Tensor, attention: Attention) -> Tensor:
        """Run the language model's layers over one line of tokens.

        Args:
            inputs_embeds: (N, H), picture features already in place; as many columns as the widest features have,
                zero beside words, where `encode_images` gives further ones and the line has a picture.
            position_ids: (A, N), as `position_ids` returns them.
            attention: which tokens see which; the model was told to use `packing.ATTENTION`.

        Returns:
            (N, H), after the final norm.
        """

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """LM head: (..., H) -> (..., V)."""

    def blocks(self) -> Iterator[nn.Module]:
        """The language model's layers, on whose linear layers adapters act."""
        for name, module in self.model.named_modules():
            if isinstance(module, GradientCheckpointingLayer) and any(
                re.fullmatch(self.lora_targets, f"{name}.{inner}") for inner, _ in module.named_modules()
            ):
                yield module

    def block_parameters(self) -> list[nn.Parameter]:
        """All parameters of the blocks."""
        return [parameter for block in self.blocks() for parameter in block.parameters()]

    def load_weights(self, folder: Path, *, blocks_in_files: bool = False) -> None:
        """Replace parameters by those of a trained base, all or some of them, by name.

        Args:
            folder: holds `model.safetensors`, written after the base's training.
            blocks_in_files: leave the blocks' weights where they lie, for who reads parts of them.

        Raises:
            ValueError: a stored name or shape is not this model's; was it trained with another `model` config?
        """
        stored = in_files([folder / "model.safetensors"])
        own = dict(self.named_parameters())
        strange = [
            f"{name} {weight.shape}"
            for name, weight in stored.items()
            if name not in own or own[name].shape != weight.shape
        ]
        if strange:
            raise ValueError(
                f"{folder}/model.safetensors does not fit the model: {len(strange)} of {len(stored)} tensors, such as "
                f"{strange[0]}; was the base trained with another model config?"
            )
        left = {id(parameter) for parameter in self.block_parameters()} if blocks_in_files else set()
        for name, weight in stored.items():
            placed = weight.to(dtype=own[name].dtype)
            if id(own[name]) in left:
                module, _, last = name.rpartition(".")
                setattr(self.get_submodule(module), last, placed)
            else:
                with torch.no_grad():
                    own[name].copy_(placed.rows())

    def pack(self) -> None:
        """Hold the frozen weights in as few bits as the settings say; the source was read and identified before that.

        Raises:
            ValueError: they are not in bf16; see `nf4.pack`.
        """
        if getattr(self.config, "quantize", "none") == "nf4":
            pack(self.model, self.lora_targets)

    def vision_parameters(self) -> list[nn.Parameter]:
        """Parameters of the vision tower, frozen in every stage but the base's own training."""
        return []

    def projector_parameters(self) -> list[nn.Parameter]:
        """Parameters of the part that maps picture features to the language model's width."""
        return []


def head_logits(head: nn.Linear, hidden: Tensor) -> Tensor:
    """LM head without a bias: in the weight's own precision, but for logits in fp32 where that is lower.

    The updates of adapters that act on the head are added, in fp32 as they are held.
    """
    if head.weight.dtype not in (torch.bfloat16, torch.float16):
        return head(hidden)
    logits = fp32_logits(hidden, head.weight)
    if isinstance(head, LoraLayer) and not head.disable_adapters:
        for name in head.active_adapters:
            if name in head.lora_A:
                logits = logits + head.lora_B[name](head.lora_A[name](hidden.float())) * head.scaling[name]
    return logits
