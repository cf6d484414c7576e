"""Real pictures on a processor: frozen EfficientNet-Lite0, a linear projector, SmolLM2-135M-Instruct."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageOps
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import skip_init
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from typing_extensions import override

from datamodules.batch import PictureError
from lightning_modules.families.base import ImageInput
from lightning_modules.families.chat_template import ChatTemplate
from lightning_modules.families.chatml import END, START, chatml
from lightning_modules.families.chatting import ChattingFamily
from lightning_modules.families.gguf import chat_tokenizer, load_llama, outline_llama
from lightning_modules.families.lite0 import Lite0, load_lite0
from lightning_modules.packing import ATTENTION

PAD, IMAGE = "<|endoftext|>", "<empty_output>"
"""More control tokens; the picture takes one that SmolLM2 reserved for notebooks, so no embedding row is added."""

STRIDE = 32
"""Pixels per cell of the tower's feature map."""


@dataclass(frozen=True)
class PaddedSquare:
    """A picture fitted into a square, black around it; see `VisionLanguageFamily.to_input`."""

    side: int
    """S, in pixels."""
    n_tokens: int
    """Placeholder tokens of every picture."""

    def __call__(self, image: Image.Image) -> ImageInput:
        """Pixels are (3, S, S) uint8."""
        self.tokens(*image.size)
        square = ImageOps.pad(image.convert("RGB"), (self.side, self.side), Image.Resampling.BICUBIC)
        pixels = torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8).view(self.side, self.side, 3)
        return ImageInput(pixels.permute(2, 0, 1).contiguous(), self.n_tokens)

    def tokens(self, width: int, height: int) -> int:
        """The same of every picture; what would be thinner than a pixel in the square is refused."""
        if max(width, height) > self.side * min(width, height):
            raise PictureError(
                "over_limits",
                f"{width}x{height} pixels: less than one row of pixels is left of it in the {self.side}x{self.side} "
                "square that the model takes; cut it, or set it on a background",
            )
        return self.n_tokens

    @property
    def most_tokens(self) -> int:
        """As every picture."""
        return self.n_tokens


class Lite0SmolLM2(ChattingFamily):
    """Cells of Lite0's feature map, pooled and projected, stand before the question.

    Only a base that is trained whole changes the tower; `projector_parameters` is what aligns it to the language model.

    Source: LLaVA, arXiv:2304.08485, section 4.1 (frozen tower, linear projector, then the language model).
    """

    lora_targets = r".*layers\.\d+\.(self_attn|mlp)\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"

    @dataclass(frozen=True)
    class Config:
        """Where the weights lie, and how much of the context a picture takes."""

        root: str = "assets"
        """Folder that `python -m datamodules.assets` filled."""
        image_size: int = 128
        """S, side of the square that a picture is fitted into, in pixels; a multiple of 32."""
        image_tokens: int = 4
        """Placeholder tokens per picture: a square number, whose root divides S / 32."""
        seed: int = 0
        """The seed of the projector's first weights, and of everything if `random`."""
        system: str = ""
        """System prompt; empty leaves the system turn out."""
        random: bool = False
        """True builds a small random model that needs no files: for tests."""

        def __post_init__(self) -> None:
            cells = self.image_size // STRIDE
            side = round(self.image_tokens**0.5)
            if self.image_size % STRIDE or cells < 1:
                raise ValueError(f"image_size={self.image_size} must be a positive multiple of {STRIDE}")
            if side < 1 or side * side != self.image_tokens or cells % side:
                raise ValueError(
                    f"image_tokens={self.image_tokens} must be the square of a divisor of image_size/{STRIDE}={cells}"
                )

    def __init__(
        self,
        config: Config | None = None,
        *,
        weights: Path | None = None,
        outline: bool = False,
        blocks_in_files: bool = False,
    ) -> None:
        """Load tower, language model and tokenizer; draw the projector.

        Args:
            config: see `Config`.
            weights: folder of a base that this code base trained; its parameters replace the loaded ones.
            outline: leave the weights out, for who only writes prompts and preprocesses pictures.
            blocks_in_files: as of `load_weights`; what the GGUF file holds is unpacked whole.

        Raises:
            FileNotFoundError: the pretrained weights were not fetched.
        """
        super().__init__()
        self.config = config if config is not None else self.Config()
        self.weights = weights
        random = self.config.random
        self.tower, self.model, self.tokenizer = random_parts(self.config.seed) if random else self._load(outline)
        self.to_input = PaddedSquare(self.config.image_size, self.config.image_tokens)
        self.tower.requires_grad_(False)
        self.hidden_size = self.model.config.hidden_size
        self.projector = nn.Sequential(
            nn.LayerNorm(self.tower.width),
            skip_init(nn.Linear, self.tower.width, self.hidden_size),  # drawn below, from our own stream
        )
        self.register_buffer("word_scale", torch.ones(()), persistent=False)
        if not outline:
            self._draw_projector()
        self.chat = ChatTemplate(self.tokenizer, chatml(IMAGE), IMAGE)
        self.image_token_id = self.tokenizer.convert_tokens_to_ids(IMAGE)
        self.banned_token_ids = tuple(sorted(set(self.tokenizer.all_special_ids) - {self.eos_token_id}))
        self.model.set_attn_implementation(ATTENTION)
        if weights is not None and not outline:
            self.load_weights(weights, blocks_in_files=blocks_in_files)

    def _load(self, outline: bool) -> tuple[Lite0, LlamaForCausalLM, PreTrainedTokenizerFast]:
        root = Path(self.config.root)
        tower, language = (
            root / "lite0/efficientnet-lite0-57934424.pth",
            root / "smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        )
        for path in (tower, language):
            if not path.is_file():
                command = f"python -m datamodules.assets --root {root} --only lite0 smollm2"
                raise FileNotFoundError(f"{path}: no such weights; run `{command}` once (110 MB, needs a network)")
        if outline:
            with torch.device("meta"):
                return Lite0(), *outline_llama(language, (END, PAD))
        return load_lite0(tower), *load_llama(language, (END, PAD))

    def _draw_projector(self) -> None:
        """Draw the projection, and scale it so that a picture's tokens are as long as the words they stand among.

        The scale is a constant outside the weights: they are of the usual size then, and so is their learning rate.
        """
        generator = torch.Generator().manual_seed(self.config.seed)
        linear = self.projector[1]
        with torch.no_grad():
            # LayerNorm gives unit variance per feature, so width * std^2 is the variance of an output.
            linear.weight.normal_(0, self.tower.width**-0.5, generator=generator)
            linear.bias.zero_()
        self.word_scale = self.model.get_input_embeddings().weight.detach().std()

    @override
    def encode_images(self, inputs: Sequence[ImageInput]) -> list[Tensor]:
        side = round(self.config.image_tokens**0.5)
        pixels = torch.stack([item.pixels for item in inputs]).to(self.model.device)
        cells = F.adaptive_avg_pool2d(self.tower(pixels), side)  # (N, width, side, side)
        return list(self.word_scale * self.projector(cells.flatten(2).transpose(1, 2)))  # N times (image_tokens, H)

    @override
    def vision_parameters(self) -> list[nn.Parameter]:
        return list(self.tower.parameters())

    @override
    def projector_parameters(self) -> list[nn.Parameter]:
        return list(self.projector.parameters())


def random_parts(seed: int) -> tuple[Lite0, LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The three parts in small: a narrow tower, two layers of width 64, a byte tokenizer with a few merges."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=[PAD, START, END, IMAGE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(
        ["user\nassistant\nsystem\nthe answer is the <think></think><answer></answer>"], trainer
    )
    tokenizer = chat_tokenizer(backend, [PAD, START, END, IMAGE], END, PAD)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tower = Lite0(((1, 3, 2, 1, 8), (1, 5, 2, 2, 12), (2, 3, 2, 2, 16), (1, 3, 2, 2, 24)), stem=8, width=48)
        return tower, LlamaForCausalLM(config).eval(), tokenizer
