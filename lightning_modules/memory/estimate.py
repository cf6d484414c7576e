"""What a training step holds in memory, from shapes alone: its forward pass is run on tensors without contents.

Choice: counted by running the code that trains, not by formulas per family, so that every family and every change of a
    layer is counted as it is. The backward pass is not run: beside what is kept for it, it is given half of one layer's
    activations for derivatives in flight.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_modules.adapters import LoRASettings
from lightning_modules.families.base import ImageInput, VisionLanguageFamily
from lightning_modules.functional.distillation import distribution_kl
from lightning_modules.functional.scoring import token_logps
from lightning_modules.memory.live_bytes import LiveBytes, attention_by_shapes
from lightning_modules.memory.shapes_only import ShapesOnly, without_weights
from lightning_modules.packing import Packing
from lightning_modules.policy import Policy
from lightning_modules.schedule import Optimizer

PACKED_BYTES = 0.5 + (1 + 4 / 256) / 64
"""Per number in NF4: four bits, and a scale of a byte for each 64, and a scale of those for each 256."""
SAMPLING_BYTES = 24
"""Per row and entry of the vocabulary: logits, ban, log-probabilities and probabilities in fp32, their sums in fp64."""
FEW_NUMBERS = 4096
"""Numbers of a tensor below which bitsandbytes keeps its moments in fp32."""


@dataclass(frozen=True)
class Piece:
    """A micro-batch: so many prompts that are shared, each by so many rows of equal length.

    Attributes:
        prompts: shared prompts; 0 where each row has its own.
        prompt: tokens of each.
        rows: all rows.
        row: tokens of each, its own prompt included.
        scored: completion tokens of each.
    """

    prompts: int
    prompt: int
    rows: int
    row: int
    scored: int

    @property
    def tokens(self) -> int:
        """That the language model runs on."""
        return self.prompts * self.prompt + self.rows * self.row

    def packing(self) -> Packing:
        """Its layout, without contents."""
        each = self.rows // self.prompts if self.prompts else 1
        rows = [(row // each if self.prompts else None, self.row) for row in range(self.rows)]
        return Packing([self.prompt] * self.prompts, rows, device="meta")


@dataclass(frozen=True)
class RolloutShape:
    """Rollouts that are written together.

    Attributes:
        rows: how many.
        prompts: of how many prompts.
        prompt: tokens of each.
        new_tokens: at most.
    """

    rows: int
    prompts: int
    prompt: int
    new_tokens: int


class ShapedModel:
    """A family without contents, with its adapters, whose memory is asked for.

    Attributes:
        seeing: bytes that encoding the picture adds to the weights at its peak.
    """

    def __init__(
        self,
        family: VisionLanguageFamily,
        ranks: Sequence[int],
        *,
        low: bool,
        packed: bool,
        held: Sequence[int] = (),
        compared: bool = False,
        picture: ImageInput | None = None,
    ) -> None:
        """Take an outline over.

        Args:
            family: built as an outline; it is changed.
            ranks: of the adapters that act; the last one learns.
            held: ranks of further adapters, which do not act while it learns.
            compared: it learns from a teacher's distributions, not from tokens.
            picture: the largest that its frozen tower sees; pictures are encoded one by one.
            low: the frozen weights are in bf16.
            packed: the language model's linear layers are in NF4.
        """
        family.to("meta", torch.bfloat16 if low else None)
        self.seeing = 0 if picture is None else seeing_bytes(family, picture)
        self.frozen = list(dict.fromkeys(family.parameters()))
        found = family.model.named_modules() if packed else ()
        chosen = (m for name, m in found if isinstance(m, nn.Linear) and re.fullmatch(family.lora_targets, name))
        self._packed, self.low, self.compared = {id(module.weight) for module in chosen}, low, compared
        self.weights = sum(map(self._bytes, self.frozen))
        self.policy = Policy(family).to("meta")
        names = [f"a{number}" for number in range(len(ranks))]
        beside = [f"held{number}" for number in range(len(held))]
        for name, rank in zip([*beside, *names], [*held, *ranks], strict=True):
            self.policy.add_adapter(name, LoRASettings(rank))
        self.policy.to("meta")
        self.policy.activate(names, trainable=names[-1])
        self.trained = [p for p in self.policy.parameters() if p.requires_grad]
        held = {id(parameter) for parameter in self.frozen}
        self.adapters = sum(p.nbytes for p in self.policy.parameters() if id(p) not in held)

    def _bytes(self, parameter: nn.Parameter) -> int:
        return round(parameter.numel() * PACKED_BYTES) if id(parameter) in self._packed else parameter.nbytes

    @property
    def blocks(self) -> list[int]:
        """Bytes of frozen weights of each block."""
        held = {id(parameter) for parameter in self.frozen}
        return [
            sum(self._bytes(p) for p in block.parameters() if id(p) in held) for block in self.policy.family.blocks()
        ]

    def weights_on(self, devices: int) -> int:
        """Bytes of frozen weights on each of several devices that share the blocks out, two gathered at a time."""
        return self.weights - sum(self.blocks) + sum(self.blocks) // devices + 2 * max(self.blocks)

    @property
    def gathered(self) -> int:
        """Bytes that all blocks take beside those two while they lie whole, the device's parts being kept."""
        return max(0, sum(self.blocks) - 2 * max(self.blocks))

    def moments(self, optimizer: Optimizer) -> int:
        """Bytes of AdamW's two moments."""
        counts = [p.numel() for p in self.trained]
        wide = sum(n for n in counts if optimizer == "adamw" or n < FEW_NUMBERS)
        return round(8 * wide + (2 + 8 / 256) * (sum(counts) - wide))

    @property
    def gradients(self) -> int:
        """Bytes of the derivatives of a piece beside the sums of those before."""
        return 2 * sum(p.numel() * 4 for p in self.trained)

    def activations(self, piece: Piece, *, checkpoint_layers: bool) -> int:
        """Bytes that a micro-batch adds to the weights at its peak, scoring and backward pass included."""
        whole, scoring, result = self.forward(piece)
        layers = self.policy.family.model.config.get_text_config().num_hidden_layers
        unpacked = max((p.numel() * 2 for p in self.frozen if id(p) in self._packed), default=0)
        if checkpoint_layers:
            self.policy.checkpoint_layers()
            held, _, _ = self.forward(piece)
            self.policy.checkpoint_layers(on=False)
            one = (whole - held) / layers
        else:
            held, one = whole, 0
        backward = held + result + one + whole / layers / 2
        return round(max(held + scoring, backward) + unpacked)

    def forward(self, piece: Piece) -> tuple[int, int, int]:
        """Bytes that the layers keep, that scoring adds to them at its peak, and that it leaves."""
        policy, family, packing = self.policy, self.policy.family, piece.packing()
        axes = family.position_ids([0, 0], []).shape[0]
        count = len(packing)
        live = LiveBytes([*policy.parameters(), *policy.buffers()])
        scored = piece.rows * piece.scored
        with attention_by_shapes(), live, torch.device("meta"):
            theirs = torch.empty(scored, family.hidden_size, dtype=self.frozen[0].dtype) if self.compared else None
            hidden = family.hidden_states(
                family.embed_tokens(torch.zeros(count, dtype=torch.long)),
                torch.zeros(axes, count, dtype=torch.long),
                packing,
            )
            kept = live.now
            live.peak = kept
            if self.compared:
                found = distribution_kl(hidden[:scored], theirs, family.logits, family.logits, banned=policy.banned)
            else:
                targets = torch.zeros(scored, dtype=torch.long)
                found = token_logps(hidden[:scored], targets, family.logits, banned=policy.banned)
        left = live.now - kept
        del found, hidden
        return kept, live.peak - kept, left

    def cache_bytes_per_token(self) -> int:
        """Keys and values of all layers."""
        packing = Packing([], [(None, 2)], device="meta", keep=True)
        axes = self.policy.family.position_ids([0, 0], []).shape[0]
        with torch.no_grad(), attention_by_shapes(), torch.device("meta"):
            embeds = self.policy.family.embed_tokens(torch.zeros(2, dtype=torch.long))
            self.policy.family.hidden_states(embeds, torch.zeros(axes, 2, dtype=torch.long), packing)
        return sum(key.nbytes + value.nbytes for key, value in packing.kept.values()) // 2

    def decoding(self, decoding: RolloutShape) -> int:
        """Bytes that writing rollouts adds to the weights: adapters folded in, caches, and the rows' probabilities."""
        each = self.cache_bytes_per_token()
        tokens = decoding.prompts * decoding.prompt + decoding.rows * (decoding.prompt + decoding.new_tokens)
        vocabulary = self.vocabulary().shape[-1]
        return self.folding + each * tokens + decoding.rows * vocabulary * SAMPLING_BYTES

    @property
    def folding(self) -> int:
        """Bytes that `folded` holds meanwhile: stacked factors over bf16, else the adapted weights a second time."""
        named = list(self.policy.family.model.named_parameters())
        if not self.low:
            return sum(p.nbytes for name, p in named if name.endswith(".base_layer.weight"))
        acting = [p for p in named if ".lora_" in p[0] and any(f".{own}." in p[0] for own in self.policy.active)]
        return sum(p.numel() * (4 if ".lora_A." in name else 12) for name, p in acting)

    @torch.no_grad()
    def vocabulary(self) -> Tensor:
        """Logits of one place."""
        hidden = torch.empty(1, self.policy.family.hidden_size, dtype=self.frozen[0].dtype, device="meta")
        return self.policy.family.logits(hidden)


@torch.no_grad()
def seeing_bytes(family: VisionLanguageFamily, picture: ImageInput) -> int:
    """Bytes that encoding a picture adds to the weights at its peak."""
    with without_weights(family), attention_by_shapes(), ShapesOnly():
        with LiveBytes([*family.parameters(), *family.buffers()]) as live:
            family.encode_images([picture])
        return live.peak
