# Shared fixtures: a tiny random vision-language model and questions with pictures of several sizes and counts.
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.batch import Example

torch.set_num_threads(1)


def corpus() -> Iterator[str]:
    """Texts for the tiny tokenizer of the tests."""
    for _ in range(30):
        yield "which heart is wide? A) narrow B) wide C) both\nuser\nassistant\n"
        yield "<think>heart 62 of 110, so the answer is wide, option B.</think><answer>B</answer>"


def noise_image(seed: int, height: int, width: int) -> Image.Image:
    """A picture of seeded noise."""
    return Image.fromarray(np.random.RandomState(seed).randint(0, 255, (height, width, 3), dtype=np.uint8))


def made_example(index: int, sizes=((112, 112),), words: int = 0) -> Example:
    """A question with one noise picture per size, and a prompt that grows with `words`."""
    return Example(
        patient_id=f"p{index}",
        images=tuple(noise_image(10 * index + i, *size) for i, size in enumerate(sizes)),
        question="which heart is wide" + " really" * words,
        options=("narrow", "wide", "both"),
        answer="wide",
        question_id=f"q{index}",
        reasoning={"intuitive": "heart 62 of 110, so the answer is wide."},
    )


@pytest.fixture(scope="session")
def mixed_examples():
    """Pictures of one and two, none at all, another aspect, prompts of different length."""
    return [
        made_example(0),
        made_example(1, sizes=((112, 112), (80, 160)), words=3),
        made_example(2, sizes=(), words=7),
        made_example(3, sizes=((160, 80),), words=1),
    ]


def new_tiny_policy():
    """A fresh random tiny model behind the policy interface."""
    from lightning_modules.families.tiny import TinyQwen2_5_VL
    from lightning_modules.policy import Policy

    config = TinyQwen2_5_VL.Config(
        corpus="tests.conftest.corpus", hidden=64, layers=2, heads=4, intermediate=96, vision_hidden=32, vision_layers=2
    )
    return Policy(TinyQwen2_5_VL(config))


@pytest.fixture
def tiny_policy():
    """One of them."""
    return new_tiny_policy()


def randomise_adapter(policy, name: str, seed: int = 0, scale: float = 0.05) -> None:
    """Give an adapter's B seeded values, so that it acts."""
    generator = torch.Generator().manual_seed(seed)
    for key, parameter in policy.family.model.named_parameters():
        if f"lora_B.{name}." in key:
            parameter.data = torch.randn(parameter.shape, generator=generator) * scale


@pytest.fixture
def fresh_policy():
    """Makes equal tiny policies, for tests that compare fits."""
    return new_tiny_policy
