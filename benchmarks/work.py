"""The work that both sides do, in numbers: sizes, lengths, rewards. Imported by both environments.

Nothing of ours is imported here, because the peer's environment does not have what our packages need. All of it is made
from seeds: no file, no network.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

PICTURE = 224
"""Side of a picture in pixels: 16 x 16 patches of 14, merged 2 x 2."""
IMAGE_TOKENS = (PICTURE // 28) ** 2
MIN_PIXELS, MAX_PIXELS = 56 * 56, 28 * 28 * 1280
"""Bounds of the image processor: 224 x 224 stays as it is."""
PROMPT_TOKENS = 200
"""Of every RL prompt, its picture and the chat frame included."""
COMPLETION_TOKENS = 64
SPECIAL_TOKENS = 7
"""First ids of the vocabulary, which made completions avoid."""
PROMPTS_PER_STEP = 4
GROUP = 8
"""G, completions per prompt."""
MICRO_ROWS = 8
"""Completions per forward and backward pass, of 32."""
SFT_ROWS = 8
"""Rows per step of supervised fine-tuning."""
RANK, ALPHA = 16, 32
LEARNING_RATE = 1e-4
BETA, CLIP, MAX_GRAD_NORM = 0.04, 0.2, 1.0
REWARD_WEIGHTS = (1.0, 0.5)
"""Of the share of even token ids, and of the share of ids in the lower half of the vocabulary."""
MAX_STEPS = 8
"""Steps before a prompt would come again: a second look at a picture would flatter whoever keeps its features."""
PROMPTS = MAX_STEPS * PROMPTS_PER_STEP

RL_WORKS = ("fixed", "varlen", "dead", "growth")
SFT_WORKS = ("fixed", "mixed")


def reward_even(ids: Sequence[int]) -> float:
    """Share of even token ids: cheap, and hardly ever constant within a group."""
    return sum(token % 2 == 0 for token in ids) / max(1, len(ids))


def reward_low(ids: Sequence[int], vocabulary: int) -> float:
    """Share of token ids in the lower half of the vocabulary."""
    return sum(token < vocabulary // 2 for token in ids) / max(1, len(ids))


def is_dead(work: str, question: int) -> bool:
    """Whether all completions of a step's question get the same reward: every other question of `dead`."""
    return work == "dead" and question % 2 == 1


def beta_of(work: str) -> float:
    """KL coefficient; without a KL term, a dead group has no gradient at all."""
    return 0.0 if work == "dead" else BETA


def completion_lengths(step: int, count: int) -> list[int]:
    """The lengths of a step's completions in `varlen`: uniform in 8..64, a function of the step alone."""
    rng = random.Random(f"lengths:{step}")
    return [rng.randint(8, COMPLETION_TOKENS) for _ in range(count)]


def fixed_completions(vocabulary: int) -> tuple[list[tuple[int, ...]], list[float]]:
    """Made completions of 4 x 8 rows, of mixed length, and their advantages (which do not sum to zero)."""
    rng = random.Random("fixed batch")
    ids = [
        tuple(rng.randrange(SPECIAL_TOKENS, vocabulary) for _ in range(length))
        for length in completion_lengths(0, PROMPTS_PER_STEP * GROUP)
    ]
    return ids, [rng.gauss(0.25, 1.0) for _ in ids]
