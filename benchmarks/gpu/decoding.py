"""Tokens per second of the built-in sampler at several numbers of rows, and what each costs in launches and bytes."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks import work
from benchmarks.gpu import launches, made, traffic
from benchmarks.gpu.lines import now
from benchmarks.gpu.sizes import Size
from benchmarks.gpu.training import bare_afterwards, let_act
from lightning_modules.adapters import LoRASettings
from lightning_modules.decoding import worth_recording
from lightning_modules.policy import Policy
from lightning_modules.prompts import Prompt
from lightning_modules.rollout import sample


def decode(policy: Policy, size: Size, device: str, rows: int) -> dict[str, Any]:
    """Decode rows of one question under an adapter that acts; the prompt's own time is taken off."""
    with bare_afterwards(policy), made.endless(policy):
        policy.add_adapter("decoding", LoRASettings(work.RANK, float(work.ALPHA)))
        policy.activate(["decoding"], trainable="decoding")
        let_act(policy)
        policy.activate(["decoding"])
        prompt = policy.prompt(made.questions(size, 1, 3000)[0], "")
        run = partial(timed, policy, prompt, rows, device)
        run(size.profile_tokens)  # warm-up: features of the picture, kernels, memory
        first, whole = run(1), run(size.decode_tokens)
        each = (whole - first) / (size.decode_tokens - 1)
        short, long = (
            launches.events_of(partial(run, count)) for count in (size.profile_tokens, 2 * size.profile_tokens)
        )
        recorded = worth_recording(policy.device, size.decode_tokens)
        columns = traffic.columns_read(len(prompt.ids), size.decode_tokens, recorded=recorded)
        moved = traffic.per_token(policy, rows, columns)
    return {
        "seconds": round(whole, 3),
        "rows": rows,
        "prompt_tokens": len(prompt.ids),
        "new_tokens": size.decode_tokens,
        "ms_per_token": round(1000 * each, 3),
        "tokens_per_s": round(rows / each, 1),
        "bytes_per_step": moved,
        "gb_per_s": round(sum(moved.values()) / each / 1e9, 1),
        "per_token": launches.per_token(short, long, size.profile_tokens),
    }


def timed(policy: Policy, prompt: Prompt, rows: int, device: str, tokens: int) -> float:
    """Seconds for so many tokens of every row."""
    began = now(device)
    with policy.folded():
        written = sample(policy, [prompt], copies=rows, seeds=list(range(rows)), max_new_tokens=tokens)
    seconds = now(device) - began
    short = [len(completion.ids) for completion in written if len(completion.ids) != tokens]
    if short:
        raise RuntimeError(f"{len(short)} of {rows} rows stopped before {tokens} tokens; is the end token banned?")
    return seconds
