"""The other side of `engines.vllm`: a process in vLLM's own environment that writes rollouts.

The engine starts it. By hand it serves one run after another, on one machine:

    VLLM_ENVIRONMENT/bin/python lightning_modules/engines/vllm_server.py --socket PATH

It runs under another interpreter than the rest, and imports nothing but vLLM, its torch, and the standard library.
A frame is 8 bytes of length, so much JSON, and the bytes whose lengths stand in the JSON's `bytes`. Requests are
`open`, `adapter` and `generate`; every reply but the last of a request says that it goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

MOST_JSON, MOST_BYTES = 2**30, 2**36
"""Longest JSON and longest binary part of a frame; more is no frame of ours."""
FEATURES = ("float32", "bfloat16", "float16")
"""Types of picture features."""
PREFILL = 8192
"""Prompt tokens at a time, or one prompt."""
PR_SET_PDEATHSIG = 1


def send(connection: socket.socket, message: dict[str, Any], parts: Sequence[Any] = ()) -> None:
    """Write a frame."""
    views = [memoryview(part).cast("B") for part in parts]
    head = json.dumps({**message, "bytes": [len(view) for view in views]}).encode()
    connection.sendall(struct.pack(">Q", len(head)) + head)
    for view in views:
        connection.sendall(view)


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[bytearray]]:
    """Read a frame.

    Raises:
        EOFError: the other side is gone.
        ValueError: what came is no frame.
    """
    (size,) = struct.unpack(">Q", exactly(connection, 8))
    if size > MOST_JSON:
        raise ValueError(f"a frame says that {size} bytes of JSON follow")
    message = json.loads(exactly(connection, size))
    sizes = message.pop("bytes", None) if isinstance(message, dict) else None
    if not isinstance(sizes, list) or not all(type(n) is int and 0 <= n <= MOST_BYTES for n in sizes):
        raise ValueError(f"a frame has no lengths of its parts: {str(message)[:100]}")
    return message, [exactly(connection, n) for n in sizes]


def exactly(connection: socket.socket, size: int) -> bytearray:
    """So many bytes.

    Raises:
        EOFError: the other side is gone.
    """
    found = bytearray(size)
    view = memoryview(found)
    while view:
        count = connection.recv_into(view)
        if not count:
            raise EOFError("the connection ended")
        view = view[count:]
    return found


class Server:
    """One vLLM engine, and the one adapter that it holds."""

    def __init__(self) -> None:
        """Load nothing yet."""
        self.engine: Any = None
        self.settings: dict[str, Any] = {}
        self.adapter: Any = None
        self.last = 0  # highest number of an adapter; vLLM keeps what it computed under a number, so none comes twice
        self.requests = 0

    def open(self, message: dict[str, Any], _parts: list[bytearray], _tell: Callable) -> dict[str, Any]:
        """Load the model, or see that it is the one that is loaded."""
        settings = message["settings"]
        if self.engine is None:
            self.engine, self.settings = loaded(settings), settings
        if settings != self.settings:
            other = sorted(key for key in settings if settings[key] != self.settings.get(key))
            raise ValueError(f"this server was opened with other settings, {other}; start another one")
        return {"adapters": self.last}

    def load(self, message: dict[str, Any], _parts: list[bytearray], _tell: Callable) -> dict[str, Any]:
        """Put an adapter in the place of the one before it."""
        from vllm.lora.request import LoRARequest

        number = message["number"]
        if number <= self.last:
            raise ValueError(f"adapter number {number} is not above {self.last}, the last one")
        self.last = number
        if self.adapter is not None:
            self.engine.remove_lora(self.adapter.lora_int_id)
        self.adapter = LoRARequest(f"policy-{number}", number, message["folder"])
        if not self.engine.add_lora(self.adapter):
            raise RuntimeError(f"vLLM did not take the adapter in {message['folder']}")
        return {}

    def generate(self, message: dict[str, Any], parts: list[bytearray], tell: Callable) -> dict[str, Any]:
        """Write rollouts, and tell each as it ends; at most a second passes without a word while tokens come."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        number, adapter = message["number"], self.adapter if message["number"] else None
        if adapter is not None and adapter.lora_int_id != number:
            raise ValueError(f"adapter number {number} is not the one that is loaded, {adapter.lora_int_id}")
        pictures = [features(*item) for item in zip(message["pictures"], parts, strict=True)]
        prompts = [prompt_of(item, pictures, message["place"]) for item in message["prompts"]]
        names = {}
        for row, (prompt, seed) in enumerate(message["rows"]):
            params = SamplingParams(
                temperature=message["temperature"],
                max_tokens=message["max_new_tokens"],
                seed=seed,
                logprobs=0,  # of the sampled token alone
                logit_bias=dict.fromkeys(message["banned"], float("-inf")),
                stop_token_ids=message["ends"],
                ignore_eos=True,  # vLLM reads them from the checkpoint in its own way; these are ours alone
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            self.requests += 1
            names[name := str(self.requests)] = row
            self.engine.add_request(name, prompts[prompt], params, lora_request=adapter)
        spoke, rows = time.monotonic(), len(names)
        try:
            while self.engine.has_unfinished_requests():
                for output in self.engine.step():
                    row = names.pop(output.request_id.partition("-")[0])
                    tell({"row": row, "prompt_tokens": len(output.prompt_token_ids), **written(output.outputs[0])})
                if time.monotonic() - spoke > 1:
                    tell({"unfinished": len(names)})
                    spoke = time.monotonic()
        finally:
            self.engine.abort_request(list(names))
        return {"rows": rows}


def loaded(settings: dict[str, Any]) -> Any:
    """The vLLM engine of a checkpoint; what decides the distribution is set here and nowhere else."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the scheduler in this process: it ends when this one does
    os.environ.setdefault("VLLM_USE_V2_MODEL_RUNNER", "0")  # the one that the tests hold to the policy
    from vllm import EngineArgs, LLMEngine

    fixed = {
        "logprobs_mode": "processed_logprobs",  # after temperature and banned tokens
        "generation_config": "vllm",  # not the checkpoint's top-k, top-p and repetition penalty
        "load_format": "safetensors",
        "trust_remote_code": False,
        "enable_lora": True,
        "max_loras": 1,
        "enable_mm_embeds": True,
        "mm_processor_cache_gb": 0,  # pictures come as features
        "limit_mm_per_prompt": {"image": 0, "video": 0},  # so that no vision tower is loaded
        "disable_log_stats": True,
        # A prompt in pieces draws a number for each, and gives it back on some devices only: rows would share streams
        # with the load of the moment.
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(settings["max_model_len"], PREFILL),
    }
    return LLMEngine.from_engine_args(EngineArgs(**settings, **fixed))


def features(head: dict[str, Any], content: bytearray) -> tuple[Any, list[int]]:
    """(n_tokens, H) features of a picture, and its grid."""
    import torch

    if head["dtype"] not in FEATURES:
        raise ValueError(f"picture features are {head['dtype']!r}; allowed: {', '.join(FEATURES)}")
    values = torch.frombuffer(content, dtype=getattr(torch, head["dtype"])).reshape(head["shape"])
    return values, head["grid"]


def prompt_of(prompt: dict[str, Any], pictures: Sequence[tuple[Any, list[int]]], place: int) -> dict[str, Any]:
    """A prompt as vLLM takes it: one placeholder for each picture, which vLLM repeats as the picture's grid says."""
    ids = prompt["ids"]
    short = [token for at, token in enumerate(ids) if token != place or at == 0 or ids[at - 1] != place]
    found: dict[str, Any] = {"prompt_token_ids": short}
    if prompt["pictures"]:
        import torch

        own = [pictures[number] for number in prompt["pictures"]]
        values, grids = torch.cat([item for item, _ in own]), torch.tensor([grid for _, grid in own])
        found["multi_modal_data"] = {"image": {"image_embeds": values, "image_grid_thw": grids}}
    return found


def written(output: Any) -> dict[str, Any]:
    """Tokens and their log-probabilities in nats."""
    ids = list(output.token_ids)
    return {"ids": ids, "logps": [chosen[token].logprob for token, chosen in zip(ids, output.logprobs, strict=True)]}


def serve(connection: socket.socket, server: Any) -> None:
    """Answer requests until the other side is gone; a request that fails is told, and the next may follow."""
    actions = {"open": server.open, "adapter": server.load, "generate": server.generate}
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            try:
                message, parts = receive(connection)
                last = actions[message["do"]](message, parts, lambda reply: send(connection, {**reply, "more": True}))
            except (EOFError, ConnectionError):
                raise
            except Exception as error:
                traceback.print_exc()
                last = {"error": f"{type(error).__name__}: {error}"}
            send(connection, {**last, "more": False})


def end_with(connection: socket.socket) -> None:
    """End this process and all that it starts as soon as the other side is gone, whatever it is doing.

    Choice: two ways. The kernel ends it with its parent even where no Python code can run; a connection that hangs up
        ends its children too, and comes from a parent that lives on.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    hangup = select.poll()
    hangup.register(connection, select.POLLRDHUP)

    def watch() -> None:
        hangup.poll()
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Serve the process that started this one, or whoever connects, one after the other."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != here]  # a module named vllm lies here
    parser = argparse.ArgumentParser(description=__doc__)
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--fd", type=int, help="an open socket, inherited from the engine")
    way.add_argument("--socket", help="path of a socket to make, for whoever may enter its folder")
    options = parser.parse_args()
    server = Server()
    if options.fd is not None:
        connection = socket.socket(fileno=options.fd)
        end_with(connection)
        serve(connection, server)
        return
    with socket.socket(socket.AF_UNIX) as listener:
        os.umask(0o077)  # for this user alone
        try:
            listener.bind(options.socket)
        except OSError as error:
            sys.exit(f"{options.socket}: {error}; serves another one there? If it was killed, remove the file")
        listener.listen(1)
        print(f"vllm_server: listens at {options.socket}", flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                serve(connection, server)


if __name__ == "__main__":
    main()
