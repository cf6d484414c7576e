"""Stands in for vLLM in the tests of what speaks with it: samples from a fixed table, with the standard library alone.

Run as an interpreter is, it runs the file that it is given with itself as the module `vllm`. `STUB_VLLM` names a fault,
`STUB_VLLM_RECORD` a file that takes what it was asked, a line of JSON each.
"""

import json
import os
import random
import runpy
import sys
import time
from types import ModuleType, SimpleNamespace

FAULT = os.environ.get("STUB_VLLM", "")
TOKENS = range(20, 60)


def record(**what):
    """Note something that it was asked."""
    if path := os.environ.get("STUB_VLLM_RECORD"):
        with open(path, "a") as file:
            file.write(json.dumps(what, default=str) + "\n")


class EngineArgs(SimpleNamespace):
    """Any arguments."""


class SamplingParams(SimpleNamespace):
    """Any parameters."""


class LoRARequest:
    """An adapter's number and folder."""

    def __init__(self, name, number, folder):
        self.lora_int_id, self.lora_path = number, folder


class LLMEngine:
    """One token of one row at a time; a row is done after a number of tokens that its stream gives."""

    def __init__(self, arguments):
        self.rows, self.length = [], {}
        cards = os.environ.get("CUDA_VISIBLE_DEVICES")
        record(opened=vars(arguments), cards=cards, pid=os.getpid(), path=sys.path)

    @classmethod
    def from_engine_args(cls, arguments):
        if FAULT == "load":
            raise MemoryError("no room for the model")
        return cls(arguments)

    def add_lora(self, request):
        files = sorted(os.listdir(request.lora_path))
        record(adapter=request.lora_int_id, folder=request.lora_path, files=files)
        return FAULT != "adapter"

    def remove_lora(self, number):
        record(removed=number)

    def add_request(self, name, prompt, params, lora_request=None):
        ids, grids = (
            prompt["prompt_token_ids"],
            prompt.get("multi_modal_data", {}).get("image", {}).get("image_grid_thw"),
        )
        shapes = [] if grids is None else grids.tolist()
        tokens = len(ids) + sum(t * h * w // 4 - 1 for t, h, w in shapes)
        number = lora_request.lora_int_id if lora_request else 0
        told = {"temperature": params.temperature, "banned": sorted(params.logit_bias), "end": params.stop_token_ids}
        record(prompt=ids, grids=shapes, seed=params.seed, number=number, **told)
        self.rows.append((name, [0] * (tokens + (FAULT == "pictures")), params))

    def has_unfinished_requests(self):
        return bool(self.rows)

    def step(self):
        if FAULT == "die" and len(self.rows) == 1:
            os.abort()
        if FAULT == "stall" and len(self.rows) == 1:
            time.sleep(60)
        if FAULT == "break" and len(self.rows) == 1:
            raise IndexError("a kernel is broken")
        name, prompt, params = self.rows.pop()  # the last first: rows end in any order
        stream, (end, *_) = random.Random(params.seed), params.stop_token_ids
        allowed = [token for token in TOKENS if token not in params.logit_bias]
        count = stream.randint(1, params.max_tokens)
        ids = [stream.choice(allowed) for _ in range(count)]
        if count < params.max_tokens and FAULT != "cut":
            ids[-1] = end
        value = float("nan") if FAULT == "nan" else -6.0
        if FAULT == "banned":
            ids[0] = next(iter(params.logit_bias))
        if FAULT == "beyond":
            ids = [end, 20]
        if FAULT == "strange":
            ids[0] = 10**6
        if FAULT == "long":
            ids += [20] * params.max_tokens
        logps = [{token: SimpleNamespace(logprob=value)} for token in ids]
        if FAULT == "lost":
            return []
        output = SimpleNamespace(token_ids=ids, logprobs=logps)
        return [SimpleNamespace(request_id=f"{name}-0ab1", prompt_token_ids=prompt, outputs=[output])]

    def abort_request(self, names):
        self.rows = [row for row in self.rows if row[0] not in names]


if __name__ == "__main__":
    for name in ("vllm", "vllm.lora.request", "vllm.sampling_params"):
        sys.modules[name] = module = ModuleType(name)
        vars(module).update(vars(sys.modules["__main__"]), RequestOutputKind=SimpleNamespace(FINAL_ONLY=2))
    sys.argv = [argument for argument in sys.argv[1:] if argument not in ("-I", "-u")]
    runpy.run_path(sys.argv[0], run_name="__main__")
