"""Reference: the models' own processors and configurations. Run: pytest tests/lightning_modules/test_context.py."""

import random
from dataclasses import replace

import pytest
from PIL import Image
from transformers import Qwen2VLImageProcessorPil

from answering.asking import ask
from answering.decoding import Decoding
from datamodules.batch import BadExampleError, PictureError
from lightning_modules.families.lite0_smollm2 import Lite0SmolLM2, PaddedSquare
from lightning_modules.families.qwen_vl import QwenPictures
from lightning_modules.families.tiny import TinyQwen2_5_VL
from lightning_modules.rollout import sample
from tests.conftest import made_example, new_tiny_policy


def qwen(smallest: int, largest: int) -> QwenPictures:
    """The released processor with other limits."""
    return QwenPictures(Qwen2VLImageProcessorPil(min_pixels=smallest, max_pixels=largest))


TAKERS = {"tiny": qwen(12_544, 12_544), "wide": qwen(3136, 100_352), "square": PaddedSquare(64, 4)}


@pytest.mark.parametrize("name", TAKERS)
def test_tokens_are_known_by_the_size_alone(name):
    takes, rng, refused = TAKERS[name], random.Random(name), 0
    for _ in range(60):
        width, height = (int(2 ** rng.uniform(0, 9)) for _ in range(2))
        try:
            expected = takes.tokens(width, height)
        except PictureError as error:
            refused += 1
            assert error.trouble == "over_limits"  # noqa: PT017
            with pytest.raises(PictureError, match=f"{width}x{height} pixels"):
                takes(Image.new("RGB", (width, height)))
            continue
        made = takes(Image.new("RGB", (width, height)))
        assert made.n_tokens == expected <= takes.most_tokens
        assert made.grid is None or made.grid[1] * made.grid[2] // 4 == expected
    assert refused or name != "square"


def test_no_picture_of_any_shape_has_more_than_the_bound():
    rng = random.Random(0)
    for takes in TAKERS.values():
        for _ in range(5000):
            width, height = (int(2 ** rng.uniform(0, 13)) for _ in range(2))
            if max(width, height) <= 60 * min(width, height):
                assert takes.tokens(width, height) <= takes.most_tokens, (width, height)


def test_what_the_processor_refuses_is_refused_by_us():
    strip = Image.new("RGB", (1200, 4))
    with pytest.raises(ValueError, match="aspect ratio"):
        TAKERS["tiny"].image_processor(images=[strip], return_tensors="pt")
    with pytest.raises(PictureError, match="one side is 300 times the other"):
        TAKERS["tiny"](strip)
    TAKERS["tiny"](Image.new("RGB", (800, 4)))  # 200 is taken


def test_a_picture_that_the_model_does_not_take_is_named(tiny_policy, tmp_path):
    path = tmp_path / "strip.png"
    Image.new("RGB", (1200, 4)).save(path)
    example = replace(made_example(0), images=(path,))
    for read in (tiny_policy.pictures.read, tiny_policy.read_picture):
        with pytest.raises(PictureError, match=r"strip.png: 1200x4 pixels"):
            read(path)
    with pytest.raises(PictureError, match=r"strip.png"):
        tiny_policy.prompt(example, "")


def test_nothing_is_sampled_or_scored_beyond_the_context(tiny_policy):
    short, long = made_example(0), made_example(1, words=2100)
    assert tiny_policy.family.context == 2048
    prompts = [tiny_policy.prompt(example, "") for example in (short, long)]
    n = len(prompts[0].ids)
    said = r"question 'q1': its prompt has \d+ tokens, 16 of them for pictures.*over the model's context of 2048"
    with pytest.raises(BadExampleError, match=said):
        sample(tiny_policy, prompts, max_new_tokens=4, temperature=0.0)
    with pytest.raises(BadExampleError, match=said):
        tiny_policy.score(prompts, [[5, 6], [5, 6]])
    with pytest.raises(BadExampleError, match=said):
        ask(tiny_policy, [short, long], "", Decoding(4))
    tiny_policy.score(prompts[:1], [[40] * (2048 - n)])  # to the last token of it
    with pytest.raises(BadExampleError, match=f"prompt has {n} tokens.*may have {2049 - n}: together 2049"):
        tiny_policy.score(prompts[:1], [[40] * (2049 - n)])
    with pytest.raises(BadExampleError, match="together 2049"):
        sample(tiny_policy, prompts[:1], max_new_tokens=2049 - n, temperature=0.0)


@pytest.mark.parametrize("kind", ["tiny", "lite0"])
def test_an_outline_writes_the_prompts_of_the_whole_model(kind):
    if kind == "tiny":
        whole = new_tiny_policy().family
        outline = TinyQwen2_5_VL(whole.config, outline=True)
        assert next(outline.model.parameters()).is_meta
    else:
        whole = Lite0SmolLM2(Lite0SmolLM2.Config(random=True))
        outline = Lite0SmolLM2(whole.config, outline=True)
    text = "which heart is wide? <think> ä"
    assert outline.prompt_ids(text, [4, 2]) == whole.prompt_ids(text, [4, 2])
    assert outline.text_ids(text) == whole.text_ids(text)
    assert len(whole.text_ids(text)) <= len(text.encode())
    assert (outline.context, outline.to_input.most_tokens) == (whole.context, whole.to_input.most_tokens)
