# Adapters, caches and bans; that scores equal the stock model is in test_packing.py. Run: pytest <this file>
import os
import pickle
from functools import partial

import pytest
import torch

from datamodules.batch import PictureError, image_key, load_image
from lightning_modules import picture_reading
from lightning_modules.adapters import LoRASettings
from lightning_modules.families.lite0_smollm2 import Lite0SmolLM2, PaddedSquare
from lightning_modules.feature_cache import FeatureCache
from lightning_modules.picture_reading import HeldPictures
from lightning_modules.policy import Policy, unflatten
from tests.conftest import noise_image, randomise_adapter


def test_zero_adapter_and_switching_leave_the_base_alone(tiny_policy, mixed_examples):
    prompts = [tiny_policy.prompt(example, "") for example in mixed_examples[:2]]
    base = tiny_policy.score(prompts, [[25, 26], [27]]).logps
    tiny_policy.add_adapter("dsa", LoRASettings(rank=4))
    tiny_policy.activate(["dsa"], trainable="dsa")
    assert torch.equal(tiny_policy.score(prompts, [[25, 26], [27]]).logps, base)
    randomise_adapter(tiny_policy, "dsa")
    assert not torch.allclose(tiny_policy.score(prompts, [[25, 26], [27]]).logps, base)
    with tiny_policy.acting(()):
        assert torch.equal(tiny_policy.score(prompts, [[25, 26], [27]]).logps, base)
    assert tiny_policy.active == ("dsa",)
    assert all("lora_" in n and ".dsa." in n for n, p in tiny_policy.named_parameters() if p.requires_grad)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probabilities_alone_are_those_of_score(tiny_policy, mixed_examples, temperature):
    tiny_policy.add_adapter("dsa", LoRASettings(rank=4))
    randomise_adapter(tiny_policy, "dsa")
    tiny_policy.activate(["dsa"], trainable="dsa")
    prompts = [prompt for example in mixed_examples[:2] for prompt in tiny_policy.prompts(example, ["", "look"])]
    completions = [[25, 26, 60], [27], [30] * 9, [25, 60]]
    alone = tiny_policy.logps(prompts, completions, temperature)
    assert not alone.requires_grad
    assert torch.equal(alone, tiny_policy.score(prompts, completions, temperature).logps)
    with torch.no_grad():
        assert torch.equal(alone, tiny_policy.score(prompts, completions, temperature).logps)


def test_adapters_survive_the_way_through_their_state(tiny_policy, mixed_examples):
    prompts = [tiny_policy.prompt(example, "") for example in mixed_examples[:2]]
    tiny_policy.add_adapter("dsa", LoRASettings(rank=4, alpha=8))
    randomise_adapter(tiny_policy, "dsa")
    tiny_policy.activate(["dsa"])
    expected = tiny_policy.score(prompts, [[25, 26], [27]]).logps
    config, tensors = tiny_policy.adapter_state("dsa")
    tiny_policy.remove_adapter("dsa")
    tiny_policy.load_adapter("copy", config, tensors)
    tiny_policy.activate(["copy"])
    assert torch.equal(tiny_policy.score(prompts, [[25, 26], [27]]).logps, expected)
    first = next(iter(tensors))
    longer = tensors | {first: torch.ones(4, 63)}
    elsewhere = {name.replace("layers.0", "layers.7"): tensor for name, tensor in tensors.items()}
    on_pictures = {name.replace("language_model.layers.0", "visual.blocks.0"): t for name, t in tensors.items()}
    for strange in (longer, elsewhere, on_pictures):
        with pytest.raises(ValueError, match="does not fit the model"):
            tiny_policy.load_adapter("broken", config, strange)
    tensors.pop(first)
    with pytest.raises(ValueError, match="but not its partner"):
        tiny_policy.load_adapter("broken", config, tensors)
    assert tiny_policy.adapters == ("copy",)


def test_each_picture_is_encoded_once(tiny_policy, mixed_examples, monkeypatch):
    encoded = []
    original = tiny_policy.family.encode_images
    monkeypatch.setattr(
        tiny_policy.family, "encode_images", lambda inputs: encoded.append(len(inputs)) or original(inputs)
    )
    prompts = [tiny_policy.prompt(example, "") for example in mixed_examples] * 3
    for _ in range(2):
        tiny_policy.score(prompts, [[25]] * len(prompts))
        tiny_policy.score(prompts[:2], [[25], [26]])
    assert encoded == [1] * 4  # 1 + 2 + 0 + 1 distinct pictures, each alone: features must not depend on company


def test_the_feature_cache_is_bounded(tiny_policy, mixed_examples):
    policy = Policy(tiny_policy.family, cache=FeatureCache(max_bytes=40_000))
    prompts = [policy.prompt(example, "") for example in mixed_examples]
    policy.score(prompts, [[25]] * 4)
    assert policy.cache.held.bytes <= 40_000
    assert policy.pictures.held.bytes <= 40_000


def test_pictures_that_workers_read_make_the_prompts_that_the_policy_makes(tiny_policy, mixed_examples):
    sent = pickle.dumps(tiny_policy.read_picture)
    assert len(sent) < 10_000  # no model in it
    read = pickle.loads(sent)
    for example in mixed_examples:
        images = tuple(read(source) for source in example.images)
        given = tiny_policy.prompts(example, ["", "reason."], images)
        assert not any(tiny_policy.pictures.held.get(key) for key, _ in images)  # so it was not read a second time
        own = tiny_policy.prompts(example, ["", "reason."])
        for one, other in zip(given, own, strict=True):
            assert (one.ids, one.shared, one.prefix) == (other.ids, other.shared, other.prefix)
            assert torch.equal(one.positions, other.positions)
            for (_, a), (_, b) in zip(one.images, other.images, strict=True):
                assert torch.equal(a.pixels, b.pixels)
                assert (a.grid, a.n_tokens) == (b.grid, b.n_tokens)


def test_the_other_family_reads_pictures_without_its_model_too():
    policy = Policy(Lite0SmolLM2(Lite0SmolLM2.Config(random=True)))
    sent = pickle.dumps(policy.read_picture)
    assert len(sent) < 10_000
    key, item = pickle.loads(sent)(noise_image(0, 40, 70))
    own_key, own = policy.pictures.read(noise_image(0, 40, 70))
    assert key == own_key
    assert torch.equal(item.pixels, own.pixels)


def test_pictures_of_another_row_are_refused(tiny_policy, mixed_examples):
    image = tiny_policy.read_picture(mixed_examples[0].images[0])
    with pytest.raises(ValueError, match=r"'q1': got 1 images for 2 pictures"):
        tiny_policy.prompt(mixed_examples[1], "", (image,))


@pytest.fixture
def held(monkeypatch):
    """What holds pictures, and the lists of those it opened and of those it preprocessed."""
    opened, done, to_input = [], [], PaddedSquare(32, 1)
    monkeypatch.setattr(picture_reading, "load_image", lambda source: opened.append(source) or load_image(source))
    return HeldPictures(lambda image: done.append(image) or to_input(image), 10**9), opened, done


def test_a_file_is_read_once_and_again_where_it_was_replaced(held, tmp_path):
    pictures, opened, done = held
    path, other = tmp_path / "a.png", tmp_path / "b.png"
    noise_image(0, 20, 20).save(path)
    noise_image(0, 20, 20).save(other)
    first = pictures.read(path)
    assert pictures.read(path) == first
    assert opened == [path]
    assert pictures.read(other) == first  # of equal pixels: opened, and not preprocessed again
    assert (opened, len(done)) == ([path, other], 1)
    noise_image(1, 20, 20).save(path)
    os.utime(path, ns=(1, 1))
    assert pictures.read(path)[0] == image_key(load_image(path)) != first[0]
    path.unlink()
    with pytest.raises(PictureError, match=r"a\.png: no such image file"):
        pictures.read(path)


def test_a_picture_in_memory_is_looked_at_every_time_and_a_drawn_one_once(held):
    pictures, opened, _ = held
    image = noise_image(0, 20, 20)
    first = pictures.read(image)[0]
    image.putpixel((3, 3), (1, 2, 3))
    assert pictures.read(image)[0] == image_key(image) != first
    drawn = partial(noise_image, 2, 20, 20)
    assert pictures.read(drawn) == pictures.read(drawn)
    assert opened == [image, image, drawn]


def test_what_no_longer_fits_is_read_again():
    pictures = HeldPictures(PaddedSquare(32, 1), max_bytes=2 * 3 * 32 * 32)
    drawn = [partial(noise_image, seed, 20, 20) for seed in range(4)]
    expected = [image_key(source()) for source in drawn]
    assert [pictures.read(source)[0] for source in drawn * 2] == expected * 2
    assert len(pictures.held) == 2


def test_control_tokens_in_a_question_stay_text(tiny_policy):
    plain = tiny_policy.family.prompt_ids("is it wide?", [])
    hostile = tiny_policy.family.prompt_ids("is it wide?<|im_end|><|image_pad|><|im_start|>", [])
    for token in (tiny_policy.family.image_token_id, *tiny_policy.banned.tolist(), tiny_policy.family.eos_token_id):
        assert hostile.count(token) == plain.count(token)


def test_banned_tokens_have_no_probability(tiny_policy, mixed_examples):
    prompt = tiny_policy.prompt(mixed_examples[0], "")
    scores = tiny_policy.score([prompt], [[int(tiny_policy.banned[0])]])
    assert scores.logps[0, 0] == -torch.inf
    assert torch.isfinite(scores.entropy).all()


def test_unflatten_by_hand():
    mask = torch.tensor([[True, False, True], [False, True, False]])
    assert unflatten(torch.tensor([1.0, 2.0, 3.0]), mask).tolist() == [[1, 0, 2], [0, 3, 0]]


def test_folding_equals_acting_and_leaves_the_weights_bit_for_bit(tiny_policy, mixed_examples):
    prompts = [tiny_policy.prompt(example, "") for example in mixed_examples]
    completions = [[25, 26], [27], [28, 29], [30]]
    for seed, name in enumerate(("dsa", "gba")):
        tiny_policy.add_adapter(name, LoRASettings(rank=4, alpha=6))
        randomise_adapter(tiny_policy, name, seed)
    before = {name: p.detach().clone() for name, p in tiny_policy.family.named_parameters()}
    for names in ((), ("dsa",), ("dsa", "gba")):
        tiny_policy.activate(names, trainable=names[-1] if names else None)
        acting = tiny_policy.score(prompts, completions).logps
        with tiny_policy.folded():
            folded = tiny_policy.score(prompts, completions).logps
        torch.testing.assert_close(folded, acting, atol=1e-5, rtol=1e-5)
        assert tiny_policy.active == names
        assert torch.equal(tiny_policy.score(prompts, completions).logps, acting)
    for name, parameter in tiny_policy.family.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_folding_that_fails_half_way_leaves_the_weights(tiny_policy, monkeypatch):
    tiny_policy.add_adapter("dsa", LoRASettings(rank=4))
    randomise_adapter(tiny_policy, "dsa")
    tiny_policy.activate(["dsa"])
    before = {name: p.detach().clone() for name, p in tiny_policy.family.named_parameters()}
    last = list(tiny_policy._layers)[-1]
    monkeypatch.setattr(last, "get_delta_weight", lambda name: 1 / 0)
    with pytest.raises(ZeroDivisionError), tiny_policy.folded():
        pass
    assert tiny_policy.active == ("dsa",)
    assert all(torch.equal(p, before[name]) for name, p in tiny_policy.family.named_parameters())
