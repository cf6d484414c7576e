"""Idefics3 and its descendant SmolVLM (SmolVLM2 too) behind the family interface."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import Idefics3ForConditionalGeneration, SmolVLMForConditionalGeneration
from transformers.models.idefics3.image_processing_pil_idefics3 import (
    Idefics3ImageProcessorPil,
    get_resize_output_image_size,
)
from typing_extensions import override

from guards.ranges import at_least
from lightning_modules.families.base import ImageInput
from lightning_modules.families.chat_template import ChatTemplate
from lightning_modules.families.checkpoint import CheckpointError
from lightning_modules.families.published import PublishedFamily


@dataclass(frozen=True)
class TileTokens:
    """How many tokens the tiles of a picture are, and back: the number alone tells rows and columns.

    A picture that is cut is written as rows of tiles, each with two markers before its placeholders and a newline after
    each row, and then the picture as a whole. The markers around the latter are not counted: every picture has them.
    """

    per_tile: int
    """Placeholders of one tile, more than rows can be."""
    blank_line: int
    """Tokens of two newlines."""

    def count(self, rows: int, columns: int) -> int:
        """Tokens of a picture of so many tiles; of one that is not cut for 0."""
        if not rows:
            return self.per_tile
        return rows * columns * (self.per_tile + 2) + rows - 1 + self.blank_line + self.per_tile

    def tiles(self, n_tokens: int) -> tuple[int, int]:
        """Rows and columns of a picture of so many tokens; 0 and 0 of one that is not cut.

        Raises:
            ValueError: no picture has so many.
        """
        if n_tokens <= self.per_tile:
            return 0, 0
        cut, rows = divmod(n_tokens - self.per_tile - self.blank_line + 1, self.per_tile + 2)
        if rows < 1 or cut % rows or not cut:
            raise ValueError(
                f"no picture has {n_tokens} tokens: with {self.per_tile} of a tile they are none of its rows and "
                "columns; pass what `to_input.tokens` says"
            )
        return rows, cut // rows


@dataclass(frozen=True)
class CutPicture:
    """A picture enlarged or reduced to whole tiles, cut, and the whole of it last; see `VisionLanguageFamily.to_input`.

    Nothing is ever padded: all tiles of a picture are of one size, so that its pixel mask would be all ones.
    """

    image_processor: Idefics3ImageProcessorPil
    tile_tokens: TileTokens

    def __call__(self, image: Image.Image) -> ImageInput:
        """Pixels are (tiles, 3, S, S)."""
        out = self.image_processor(images=[[image]], return_row_col_info=True, return_tensors="pt")
        return ImageInput(out["pixel_values"][0], self.tile_tokens.count(out["rows"][0][0], out["cols"][0][0]))

    def tokens(self, width: int, height: int) -> int:
        """By the rows and columns that the resized picture is cut into."""
        return self.tile_tokens.count(*self._tiles(width, height))

    @property
    def most_tokens(self) -> int:
        """Of a square, for a picture's longer side is always made the largest size."""
        return self.tile_tokens.count(*self._tiles(1, 1))

    @property
    def most_per_side(self) -> int:
        """Rows and columns that no picture exceeds; at least 1."""
        return max(1, *self._tiles(1, 1))

    def _tiles(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns; the processor's own steps, on the size alone."""
        processor = self.image_processor
        if not processor.do_image_splitting:
            return 0, 0
        shape = np.broadcast_to(np.uint8(0), (3, height, width))  # only its shape is looked at
        height, width = get_resize_output_image_size(shape, processor.size["longest_edge"])
        tile = processor.max_image_size["longest_edge"]
        aspect = width / height
        if width >= height:
            width = math.ceil(width / tile) * tile
            height = math.ceil(int(width / aspect) / tile) * tile
        else:
            height = math.ceil(height / tile) * tile
            width = math.ceil(int(height * aspect) / tile) * tile
        rows, columns = height // tile, width // tile
        return (rows, columns) if rows * columns > 1 else (0, 0)


class Idefics3(PublishedFamily):
    """An Idefics3 checkpoint: SigLIP on tiles, pixels shuffled into channels, Llama.

    Source: Idefics3, arXiv:2408.12637, section 4; SmolVLM, arXiv:2504.05299.
    """

    model_types = ("idefics3",)
    model_class = Idefics3ForConditionalGeneration
    lora_targets = r".*text_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    place, around = "<image>", "<fake_token_around_image>"

    @dataclass(frozen=True)
    class Config(PublishedFamily.Config):
        """Which checkpoint, in what precision, at what picture size."""

        longest_edge: Annotated[int | None, at_least(1)] = None
        """The longer side of a picture before it is cut, in pixels; null is the checkpoint's own. One of a tile or less
        leaves pictures whole."""

    @override
    def _chat(self) -> ChatTemplate:
        return ChatTemplate(self.tokenizer, self.template, self.place, picture=self._written)

    def _written(self, n_tokens: int) -> str:
        """A picture in a prompt, as the released processor writes it."""
        counted = self.to_input.tile_tokens
        (rows, columns), tile = counted.tiles(n_tokens), self.place * min(n_tokens, counted.per_tile)
        cut = "".join(
            "".join(f"{self.around}<row_{row + 1}_col_{column + 1}>{tile}" for column in range(columns)) + "\n"
            for row in range(rows)
        )
        before = f"{cut}\n" if rows else ""
        return f"{before}{self.around}<global-img>{tile}{self.around}"

    @override
    def _picture_settings(self) -> dict[str, Any]:
        side = self.config.longest_edge
        return {} if side is None else {"size": {"longest_edge": side}}

    @override
    def _picture_input(self) -> CutPicture:
        vision, shuffled = self.model.config.vision_config, self.model.config.scale_factor**2
        per_tile = (vision.image_size // vision.patch_size) ** 2 // shuffled
        pictures = CutPicture(self.image_processor, TileTokens(per_tile, len(self.text_ids("\n\n"))))
        self._refuse_unwritable(pictures)
        return pictures

    def _refuse_unwritable(self, pictures: CutPicture) -> None:
        """Refuse a processor that cuts a side into more tiles than there are tokens for."""
        where, most = f"{self.config.path}: its picture processor", pictures.most_per_side
        if pictures.image_processor.do_image_splitting and not pictures.image_processor.do_resize:
            raise CheckpointError(f"{where} cuts pictures without resizing them first, into any number of tiles")
        known, names = self.tokenizer.get_vocab(), ("<global-img>", self.around, f"<row_{most}_col_{most}>")
        missing = [name for name in names if name not in known]
        if missing or most > pictures.tile_tokens.per_tile + 1:
            raise CheckpointError(
                f"{where} cuts a side into up to {most} tiles of {pictures.tile_tokens.per_tile} tokens, and the "
                f"tokenizer has no {', no '.join(missing) or 'such grid'}; choose a smaller longest_edge, or is "
                "preprocessor_config.json of another model?"
            )

    @override
    def encode_images(self, inputs: Sequence[ImageInput]) -> list[Tensor]:
        model = self.model.model
        pixels = torch.cat([item.pixels for item in inputs]).to(self.model.device, self.model.dtype)
        features = model.connector(model.vision_model(pixels).last_hidden_state)  # (tiles, tokens of one, H)
        return [tiles.flatten(0, 1) for tiles in features.split([len(item.pixels) for item in inputs])]

    @override
    def vision_parameters(self) -> list[nn.Parameter]:
        return list(self.model.model.vision_model.parameters())

    @override
    def projector_parameters(self) -> list[nn.Parameter]:
        return list(self.model.model.connector.parameters())


class SmolVLM(Idefics3):
    """A SmolVLM checkpoint: the same parts, smaller, under another name."""

    model_types = ("smolvlm",)
    model_class = SmolVLMForConditionalGeneration
