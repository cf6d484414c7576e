"""Reference: what autograd saves on the CPU, counted by its hooks, and the most that is alive in a real step.

Run: pytest tests/lightning_modules/test_memory.py.
"""

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_modules.adapters import LoRASettings
from lightning_modules.families.tiny import TinyQwen2_5_VL
from lightning_modules.functional.distillation import distribution_kl
from lightning_modules.functional.scoring import token_logps
from lightning_modules.memory.estimate import Piece, RolloutShape, ShapedModel
from lightning_modules.memory.live_bytes import LiveBytes
from lightning_modules.packing import Packing
from lightning_modules.policy import Policy
from lightning_modules.row_cache import RowCache
from tests.lightning_modules.families.shapes import SHAPES
from tests.lightning_modules.test_low_lora import held_bytes

SIZES = {
    "tiny": {"hidden": 64, "layers": 2, "heads": 4, "intermediate": 96},
    "deep": {"hidden": 96, "layers": 6, "heads": 2, "intermediate": 256},
    "wide": {"hidden": 576, "layers": 3, "heads": 9, "intermediate": 1536},  # as a model of 100 M parameters
}
PIECES = {"rows": Piece(0, 0, 3, 70, 30), "shared": Piece(2, 60, 8, 25, 20)}


def family(size, outline=False):
    sizes = SIZES[size] | {"vision_hidden": 32, "vision_layers": 1}
    return TinyQwen2_5_VL(TinyQwen2_5_VL.Config(corpus="tests.conftest.corpus", **sizes), outline=outline)


def noise(width, height):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def real_policy(size, low):
    policy = Policy(family(size))
    if low:
        policy.family.to(torch.bfloat16)
    for name, rank in (("a0", 4), ("a1", 8)):
        policy.add_adapter(name, LoRASettings(rank))
    policy.activate(["a0", "a1"], trainable="a1")
    return policy


def real_pass(policy, piece):
    """The forward pass of a micro-batch, with contents."""
    each = piece.rows // piece.prompts if piece.prompts else 1
    rows = [(row // each if piece.prompts else None, piece.row) for row in range(piece.rows)]
    packing = Packing([piece.prompt] * piece.prompts, rows)
    axes = policy.family.position_ids([0, 0], []).shape[0]
    ids, positions = torch.full((len(packing),), 30), torch.arange(len(packing)).expand(axes, -1)
    hidden = policy.family.hidden_states(policy.family.embed_tokens(ids), positions, packing)
    return hidden[: piece.rows * piece.scored]


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize(("size", "low"), [("tiny", False), ("deep", True), ("wide", False)])
def test_the_estimate_is_within_a_tenth_of_what_a_step_holds(size, low, piece):
    piece = PIECES[piece]
    policy = real_policy(size, low)
    shaped = ShapedModel(family(size, outline=True), [4, 8], low=low, packed=False)
    own = [*policy.parameters(), *policy.buffers()]
    saved, _ = held_bytes(lambda: real_pass(policy, piece), without=own)
    assert shaped.forward(piece)[0] == pytest.approx(saved, rel=0.1)
    assert shaped.weights == sum(p.nbytes for n, p in policy.family.named_parameters() if "lora_" not in n)
    assert shaped.adapters == sum(p.nbytes for n, p in policy.family.named_parameters() if "lora_" in n)
    for checkpoint_layers in (False, True):
        if checkpoint_layers:
            policy.checkpoint_layers()
        targets = torch.full((piece.rows * piece.scored,), 30)
        with LiveBytes(own) as live:
            logps, _ = token_logps(real_pass(policy, piece), targets, policy.family.logits, banned=policy.banned)
            trained = [p for p in policy.parameters() if p.requires_grad]
            torch.autograd.grad(logps.sum(), trained)
        gradients = sum(p.nbytes for p in trained)
        estimate = shaped.activations(piece, checkpoint_layers=checkpoint_layers)
        assert live.peak - gradients <= 1.1 * estimate
        assert estimate <= 1.1 * live.peak + shaped.forward(piece)[0] / SIZES[size]["layers"]


@pytest.mark.parametrize("name", ["qwen3_vl", "gemma3", "smolvlm", "internvl"])
def test_every_family_is_counted_as_it_is(name, tmp_path):
    shape, tied = SHAPES[name]
    config = shape.family_class.Config(path=str(shape.write(tmp_path / "hub", tied=tied)), dtype="float32")
    policy = Policy(shape.family_class(config))
    policy.add_adapter("a0", LoRASettings(4))
    policy.activate(["a0"], trainable="a0")
    shaped = ShapedModel(shape.family_class(config, outline=True), [4], low=False, packed=False)
    assert shaped.weights == sum(p.nbytes for n, p in policy.family.named_parameters() if "lora_" not in n)
    saved, _ = held_bytes(
        lambda: real_pass(policy, PIECES["shared"]), without=[*policy.parameters(), *policy.buffers()]
    )
    assert shaped.forward(PIECES["shared"])[0] == pytest.approx(saved, rel=0.1)


@pytest.mark.parametrize("name", [name for name, (shape, _) in SHAPES.items() if shape.family_class.place])
@pytest.mark.parametrize("low", [False, True])
def test_what_a_tower_holds_is_counted_without_weights(name, low, tmp_path):
    shape, tied = SHAPES[name]
    config = shape.family_class.Config(path=str(shape.write(tmp_path / "hub", tied=tied)), dtype="float32")
    family, outline = shape.family_class(config), shape.family_class(config, outline=True)
    family.to(torch.bfloat16 if low else torch.float32)
    picture = family.preprocess(noise(400, 300))
    with torch.no_grad(), LiveBytes([*family.parameters(), *family.buffers()]) as live:
        family.encode_images([picture])
    assert ShapedModel(outline, [4], low=low, packed=False, picture=picture).seeing == pytest.approx(live.peak, rel=0.1)


def test_weights_lie_where_they_lay_after_a_tower_was_counted():
    model = family("tiny", outline=True)
    before = {name: id(p) for name, p in [*model.named_parameters(), *model.named_buffers()]}
    seen = ShapedModel(model, [4], low=False, packed=False, picture=model.preprocess(noise(60, 60)))
    bare = ShapedModel(family("tiny", outline=True), [4], low=False, packed=False)
    assert (
        before.items()
        <= {
            name.replace("base_layer.", ""): id(p) for name, p in [*model.named_parameters(), *model.named_buffers()]
        }.items()
    )
    assert seen.weights == bare.weights
    assert (seen.seeing > 0, bare.seeing) == (True, 0)


def test_the_cache_is_that_of_the_rows():
    policy = real_policy("deep", True)
    shaped = ShapedModel(family("deep", outline=True), [4, 8], low=True, packed=False)
    packing = Packing([], [(None, 20)], keep=True)
    with torch.no_grad():
        embeds = policy.family.embed_tokens(torch.full((20,), 30))
        policy.family.hidden_states(embeds, torch.arange(20).expand(3, -1), packing)
    cache = RowCache(packing, [0] * 6, 10)
    held = sum(buffer.nbytes for pair in cache.buffers.values() for buffer in pair)
    assert held == 6 * 30 * shaped.cache_bytes_per_token()
    vocabulary = len(policy.family.tokenizer)
    decoding = shaped.decoding(RolloutShape(6, 1, 20, 10)) - shaped.folding
    assert decoding == held + 20 * shaped.cache_bytes_per_token() + 6 * vocabulary * 24


@pytest.mark.parametrize("low", [True, False])
def test_what_is_folded_in_is_counted(low):
    policy, shaped = real_policy("deep", low), ShapedModel(family("deep", outline=True), [4], low=low, packed=False)
    policy.add_adapter("expert", LoRASettings(4))
    policy.activate(["expert"])
    live = LiveBytes([*policy.parameters(), *policy.buffers()])
    with live, policy.folded():
        assert live.now == shaped.folding


def test_four_bits_and_eight_bits_by_hand():
    shaped = ShapedModel(family("wide", outline=True), [8], low=True, packed=True)
    dense = ShapedModel(family("wide", outline=True), [8], low=True, packed=False)
    per_layer = 4 * 576**2 + 3 * 576 * 1536
    assert dense.weights - shaped.weights == pytest.approx(3 * per_layer * (2 - 0.5 - 1 / 64 - 1 / 64**2), rel=1e-4)
    trained = sum(p.numel() for p in shaped.trained)
    assert shaped.moments("adamw") == 8 * trained
    assert shaped.moments("paged_adamw8bit") == pytest.approx(2 * trained, rel=0.03)  # all have over 4,096 numbers


def test_blocks_are_shared_out_over_devices():
    shaped = ShapedModel(family("deep", outline=True), [4], low=False, packed=False)
    layers = SIZES["deep"]["layers"]
    block = sum(
        p.nbytes for name, p in shaped.policy.family.named_parameters() if ".layers.0." in name and ".lora_" not in name
    )
    assert shaped.weights_on(4) == shaped.weights - layers * block + layers * block // 4 + 2 * block
    assert shaped.weights_on(4) + shaped.gathered == shaped.weights + layers * block // 4


@pytest.mark.parametrize("piece", PIECES)
def test_a_step_that_compares_distributions_is_estimated_with_its_teacher(piece):
    piece, policy = PIECES[piece], real_policy("wide", False)
    policy.activate(["a1"], trainable="a1")
    shaped = ShapedModel(family("wide", outline=True), [8], held=[4], compared=True, low=False, packed=False)
    assert shaped.adapters == sum(p.nbytes for n, p in policy.family.named_parameters() if "lora_" in n)
    trained = [p for p in policy.parameters() if p.requires_grad]
    with LiveBytes([*policy.parameters(), *policy.buffers()]) as live:
        with torch.no_grad(), policy.acting(["a0"]):
            theirs = real_pass(policy, piece).clone()
        hidden = real_pass(policy, piece)
        kl = distribution_kl(hidden, theirs, policy.family.logits, policy.family.logits, banned=policy.banned)
        torch.autograd.grad(kl.sum(), trained)
    estimate = shaped.activations(piece, checkpoint_layers=False)
    assert live.peak - sum(p.nbytes for p in trained) <= 1.1 * estimate
    assert estimate <= 1.1 * live.peak + shaped.forward(piece)[0] / SIZES["wide"]["layers"]
    alone = ShapedModel(family("wide", outline=True), [8], held=[4], low=False, packed=False)
    assert estimate > alone.activations(piece, checkpoint_layers=False)
