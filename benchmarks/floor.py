"""How fast the RL step could be at best: `python -m benchmarks.floor --size 5m`.

Counted are the linear layers of the language model, the LM head and attention, each token once, pictures cached, at one
thread's own GEMM rate for the shapes at hand. What is left out (norms, rotations, softmax, sampling, adapters) costs
time too: nothing can be faster than this, and nothing will be as fast.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from benchmarks import work
from benchmarks.made_model import SIZES, Size


def linear_flops(size: Size) -> int:
    """Of one token through all layers: two per weight."""
    head = size.hidden // size.heads
    attention = size.hidden * (2 * size.hidden + 2 * size.kv_heads * head)
    return 2 * size.layers * (attention + 3 * size.hidden * size.intermediate)


def step_flops(size: Size) -> dict[str, float]:
    """Of one RL step, by phase, in GFLOP."""
    rows, prompt, completion = work.PROMPTS_PER_STEP * work.GROUP, work.PROMPT_TOKENS, work.COMPLETION_TOKENS
    packed = work.PROMPTS_PER_STEP * prompt + rows * (completion - 1)
    keys = work.PROMPTS_PER_STEP * prompt**2 / 2 + rows * completion * (prompt + completion / 2)
    layers = packed * linear_flops(size) + 4 * size.layers * size.hidden * keys
    head = 2 * rows * completion * size.hidden * size.vocabulary
    phases = {
        "decoding": layers + head,
        "reference": layers + head,
        "forward": layers + head,
        "backward": layers + head,  # by the inputs only: the weights are frozen
    }
    return {name: flops / 1e9 for name, flops in phases.items()}


def decoding_gigabytes(size: Size) -> dict[str, float]:
    """What decoding reads in one RL step, in GB of fp32: weights once for all rows, keys and values of each."""
    rows, steps = work.PROMPTS_PER_STEP * work.GROUP, work.COMPLETION_TOKENS - 1
    weights = linear_flops(size) / 2 + size.hidden * size.vocabulary
    columns = work.PROMPT_TOKENS + work.COMPLETION_TOKENS / 2
    cache = rows * columns * 2 * size.layers * size.kv_heads * size.hidden // size.heads
    return {"weights": 4 * steps * weights / 1e9, "keys and values": 4 * steps * cache / 1e9}


def rate(run: Callable[[], torch.Tensor], flops: float, seconds: float = 0.5) -> float:
    """Best GFLOP per CPU second over repeated runs."""
    run()
    best, begin = float("inf"), time.process_time()
    while time.process_time() - begin < seconds:
        start = time.process_time()
        for _ in range(3):
            run()
        best = min(best, (time.process_time() - start) / 3)
    return flops / best / 1e9


def rates(size: Size) -> dict[str, float]:
    """GFLOP per second of the widest layer with the rows of decoding and of training."""
    found = {}
    weight = torch.randn(size.intermediate, size.hidden)
    for name, rows in (("decoding", work.PROMPTS_PER_STEP * work.GROUP), ("training", 1024)):
        x = torch.randn(rows, size.hidden)
        found[name] = rate(lambda x=x: torch.nn.functional.linear(x, weight), 2 * rows * weight.numel())
    return found


def main(given: list[str] | None = None) -> None:
    """Print the floor."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", choices=list(SIZES), required=True)
    size = SIZES[parser.parse_args(given).size]
    torch.set_num_threads(1)
    measured, total = rates(size), 0.0
    for phase, gflop in step_flops(size).items():
        speed = measured["decoding" if phase == "decoding" else "training"]
        total += gflop / speed
        print(f"{phase:10} {gflop:8.1f} GFLOP at {speed:5.1f} GFLOP/s: {gflop / speed:6.2f} s")
    reads = ", ".join(f"{gigabytes:.1f} GB of {name}" for name, gigabytes in decoding_gigabytes(size).items())
    print(f"decoding reads {reads}")
    print(f"{'step':10} {total:36.2f} s of CPU")


if __name__ == "__main__":
    main()
