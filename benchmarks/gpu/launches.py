"""How often the processor launches something on the card, and waits for it, by the profiler's own events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import torch
from torch.profiler import ProfilerActivity, profile

KERNELS = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")
GRAPHS = ("cudaGraphLaunch",)
COPIES = ("cudaMemcpyAsync", "cudaMemsetAsync")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")


def events_of(work: Callable[[], object]) -> dict[str, int]:
    """How often each event happened while something ran.

    Choice: the profiler's raw events, because its table takes minutes for the kernels of a hundred tokens.
    """
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])
    with profile(activities=activities) as profiler:
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    return dict(Counter(event.name() for event in profiler.profiler.kineto_results.events()))


def summed(events: Mapping[str, int]) -> dict[str, int]:
    """Events by what they are.

    Returns:
        `operators` (calls into PyTorch, those within others included), `kernels`, `graphs`, `copies`, `waits`.
    """
    named = {"kernels": KERNELS, "graphs": GRAPHS, "copies": COPIES, "waits": WAITS}
    found = {name: sum(events.get(key, 0) for key in keys) for name, keys in named.items()}
    return {"operators": sum(n for key, n in events.items() if key.startswith("aten::")), **found}


def per_token(short: Mapping[str, int], long: Mapping[str, int], tokens: int) -> dict[str, float]:
    """What each further token took, from the events of two runs.

    Args:
        short: of a run.
        long: of the same with so many more tokens.
        tokens: more.
    """
    few, many = summed(short), summed(long)
    return {name: round((many[name] - few[name]) / tokens, 2) for name in many}
