# Reference: the released processors on texts and pictures together, tokens and pixels. Run: pytest <this file>
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoImageProcessor, AutoTokenizer, Gemma3Processor, Idefics3Processor, InternVLProcessor
from transformers.models.smolvlm import processing_smolvlm

from tests.conftest import noise_image
from tests.lightning_modules.families.tiled_shapes import TILED_SHAPES

NO_VIDEO = SimpleNamespace(num_frames=1, fps=1, model_input_names=[])
PICTURES = ((50, 90), (40, 40), (20, 200))


def unchecked(processor_class):
    """A processor class that takes `NO_VIDEO`: the real ones for videos need torchvision."""
    return type(processor_class.__name__, (processor_class,), {"check_argument_for_proper_class": lambda *_: None})


STOCK = {
    "gemma3": lambda **parts: Gemma3Processor(image_seq_length=4, **parts),
    "idefics3": lambda **parts: Idefics3Processor(image_seq_len=9, **parts),
    "smolvlm": lambda **parts: unchecked(processing_smolvlm.SmolVLMProcessor)(
        image_seq_len=9, video_processor=NO_VIDEO, **parts
    ),
    "internvl": lambda **parts: unchecked(InternVLProcessor)(image_seq_length=4, video_processor=NO_VIDEO, **parts),
}


@pytest.fixture(params=sorted(STOCK))
def both(request, tmp_path, monkeypatch):
    """Our family without its weights, and the released processor."""
    monkeypatch.setattr(processing_smolvlm, "num2words", str)  # it is asked for although it counts videos alone
    shape, tied = TILED_SHAPES[request.param]
    folder = shape.write(tmp_path / "hub", tied=tied)
    stock = STOCK[request.param](
        image_processor=AutoImageProcessor.from_pretrained(folder, backend="pil"),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        chat_template=shape.template,
    )
    return shape.family_class(shape.family_class.Config(path=str(folder)), outline=True), stock


@pytest.mark.parametrize("last", [False, True])
def test_prompts_are_written_as_the_released_processor_writes_them(both, last):
    family, stock = both
    images = [noise_image(seed, *size) for seed, size in enumerate(PICTURES)]
    ours = [family.preprocess(image) for image in images]
    for text in ("which heart is wide?", "\n\n which\nheart?", "  \n\nx\n\n", ""):
        for system in (None, "be brief"):
            said, shown = [{"type": "text", "text": text}], [{"type": "image", "image": image} for image in images]
            asked = [{"role": "user", "content": [*said, *shown] if last else [*shown, *said]}]
            if system:
                asked.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
            found = stock.apply_chat_template(
                asked, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
            )
            counts = [item.n_tokens for item in ours]
            ids = family.prompt_ids(text, counts, system=system, pictures_last=last)
            assert ids == found["input_ids"][0].tolist()
    pixels = torch.cat([item.pixels for item in ours])
    assert torch.equal(found["pixel_values"].reshape(pixels.shape), pixels)
    assert found.get("pixel_attention_mask", torch.ones(1)).all()  # nothing is padded within a question
