"""`python -m answering serve`: what was trained behind OpenAI's interface, on this machine unless there is a key."""

from __future__ import annotations

import argparse
import ipaddress
import os
import shlex
import socket
from argparse import Namespace
from collections.abc import Sequence

import uvicorn

from answering.model_commands import add_model_options, live_model
from answering.serving.app import Doors, application
from answering.serving.chat_request import Offer
from answering.serving.worker import Worker
from answering.trained import Trained, of_one_base, trained
from artifacts.adapter_files import open_adapter
from artifacts.base_origin import whole_path
from guards.printable import printable
from lightning_modules.rewards.guidelines import FOLDER, NEUTRAL, load_guidelines

LOOPBACK = ("localhost", "127.0.0.1", "::1")
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as --max-lora-rank."""
SHORTEST_KEY = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    runs = "folders of experiments, runs, merged agents or adapters on one base; or a base: folder or hub id"
    parser.add_argument("runs", nargs="+", metavar="RUN", help=runs)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; any but loopback needs a key")
    parser.add_argument("--port", type=int, default=8000, help="to listen at (default 8000)")
    parser.add_argument("--key-variable", default="", help="environment variable that holds the key clients must send")
    add_model_options(parser)


def run(given: Namespace) -> int:
    """Serve until it is interrupted.

    Raises:
        ValueError: there is no key where one is needed.
        AdapterError: what is named cannot be served.
        OSError: the address is taken, or not this machine's.
    """
    doors = doors_of(given)
    served = of_one_base(trained(given.runs, given.base))
    family = socket.AF_INET6 if ":" in given.host else socket.AF_INET
    with socket.create_server((given.host, given.port), family=family) as listening:
        model = live_model(given, served)
        context = model.context.policy()[0].family.context
        offer = Offer([member.name for member in served], instructions(), min(given.max_tokens, context), context)
        worker = Worker(model, {member.name: member.adapters for member in served})
        print(told(given.host, listening.getsockname()[1], served), flush=True)
        listen(listening, worker, offer, doors)
    return 0


def listen(listening: socket.socket, worker: Worker, offer: Offer, doors: Doors) -> None:
    """Run the server; it ends at a signal, and the answer in work with it."""
    app = application(worker, offer, doors)
    try:
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3)
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        worker.close()


def instructions() -> dict[str, str]:
    """Guideline -> instruction, of all that the project has; a client names one, and never a file."""
    names = [*sorted(file.stem for file in FOLDER.glob("*.yaml")), NEUTRAL]
    return {name: guideline.instruction for name, guideline in load_guidelines(names).items()}


def doors_of(given: Namespace) -> Doors:
    """Who is let in.

    Raises:
        ValueError: the address is not loopback and there is no key, or the key is none.
    """
    name = given.key_variable
    key = os.environ.get(name, "") if name else ""
    if name and not (len(key) >= SHORTEST_KEY and key.isascii() and key.isprintable() and " " not in key):
        raise ValueError(
            f"--key-variable {printable(name)}: that environment variable must hold a key of at least {SHORTEST_KEY} "
            "letters without blanks, such as `openssl rand -hex 16` gives"
        )
    if not key and not is_loopback(given.host):
        raise ValueError(
            f"--host {printable(given.host)} can be reached from other machines: set a key with --key-variable NAME, "
            "or listen at 127.0.0.1"
        )
    return Doors(key, () if key else (*LOOPBACK, given.host))


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def told(host: str, port: int, served: Sequence[Trained]) -> str:
    """What is said at the start."""
    host = f"[{host}]" if ":" in host else host
    return "\n".join(
        [
            f"serving at http://{host}:{port}/v1   (Ctrl-C ends it)",
            *(f"  {printable(member.name)}" for member in served),
            "One request at a time, as the examination asks. For load, with vLLM in an environment of its own:",
            *(f"  {line}" for line in vllm_lines(served)),
        ]
    )


def vllm_lines(served: Sequence[Trained]) -> list[str]:
    """The commands that export what is served, and serve it by vLLM."""
    base, experts = served[0], served[1:]
    export = ["python", "-m", "experiment.export"]
    lines, place, told = [], whole_path(base.place), []
    if base.origin.get("weights") is not None:  # trained here: no checkpoint stands anywhere
        place, told = "exported/base", ["--base", "exported/base"]
        lines.append(shlex.join([*export, str(base.folder), "--out", place]))
    places = {member.name: f"exported/{member.name}" for member in experts}
    for member in experts:
        lines.append(shlex.join([*export, str(member.folder), "--adapter", *told, "--out", places[member.name]]))
    dtype = "float32" if told else base.origin["init_args"].get("dtype", "bfloat16")
    serve = ["vllm", "serve", place, "--dtype", dtype]  # by itself vLLM rounds float32 to 16 bits
    if experts:
        rank = max(rank_of(member) for member in experts)
        most = next((r for r in VLLM_RANKS if r >= rank), VLLM_RANKS[-1])
        modules = [f"{name}={place}" for name, place in places.items()]
        serve += ["--enable-lora", "--max-lora-rank", str(most), "--lora-modules", *modules]
    return [*lines, shlex.join(serve)]


def rank_of(member: Trained) -> int:
    """The largest rank that a chain has when it is one adapter."""
    ranks: dict[str, int] = {}
    for path in member.adapters:
        adapter = open_adapter(path, base_fingerprint=None)
        for module in adapter.shapes:
            ranks[module] = ranks.get(module, 0) + adapter.pair(module)[0].shape[0]
    return max(ranks.values())
