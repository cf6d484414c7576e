"""vLLM as the engine: fast, in a process and an environment of its own, fed with the policy's own picture features.

What it serves is the policy up to kernels and rounding. So each call scores one of its rollouts again and refuses a
server that serves something else, every token is weighted in the loss (`sampler_weight_cap`), and the distance is
reported (`train/ratio/*`). Rollouts of equal seeds may differ in their last tokens from one machine to another.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from typing_extensions import override

from configs.schema import Checked
from guards.ranges import Ranged, above, at_least, between
from lightning_modules.engines.engine import Engine
from lightning_modules.engines.vllm_adapter import Factors, acting_adapter, digest, rank_of, room_for, write_peft
from lightning_modules.engines.vllm_process import Link
from lightning_modules.engines.vllm_request import completions_of, request_of, served_checkpoint
from lightning_modules.families.base import VisionLanguageFamily
from lightning_modules.policy import Policy
from lightning_modules.prompts import Prompt
from lightning_modules.rollout import Completion

LEAST_TEMPERATURE = 0.01
"""Below it vLLM takes another one."""


def python_faults(path: str) -> Iterator[str]:
    """What is wrong with an interpreter's path."""
    if path and not os.access(path, os.X_OK):
        yield f"{path!r} is no program; name bin/python of the environment that requirements-vllm.txt describes"


class VLLM(Engine):
    """Samples from a copy of the policy that vLLM serves: the checkpoint, with the acting adapters as one LoRA."""

    exact = False

    @dataclass(frozen=True)
    class Config(Ranged):
        """Where vLLM is, how much of a card it takes, and how long it may be silent."""

        python: Annotated[str, Checked(python_faults)] = ""
        """Interpreter of vLLM's environment, with which the run starts a server; or `socket`."""
        socket: str = ""
        """Socket of a server on this machine that was started by hand; or `python`."""
        context: Annotated[int, at_least(1)] = 8192
        """Tokens that prompt and completion may have together; vLLM's cache must hold at least one such row."""
        rows_at_once: Annotated[int, at_least(1)] = 256
        """Rollouts decoded together, at least 1."""
        gpu_memory_utilization: Annotated[float, between(0, 1, open_low=True)] = 0.4
        """Share of a card's memory that vLLM takes, in (0, 1]; training has the rest, unless `cards` names others."""
        cards: str = ""
        """CUDA_VISIBLE_DEVICES of a server that is started; empty means the card that the policy lies on."""
        tensor_parallel_size: Annotated[int, at_least(1)] = 1
        """Cards that hold the model together, at least 1."""
        enforce_eager: bool = False
        """Compile nothing: starts sooner, decodes slower."""
        start_s: Annotated[float, above(0)] = 1200.0
        """Seconds within which the model must be loaded."""
        silence_s: Annotated[float, above(0)] = 300.0
        """Seconds without a word after which a server counts as stalled; compiling kernels is such a silence."""
        most_drift: Annotated[float, above(0)] = 0.5
        """Mean distance of a rollout's log-probabilities from the policy's own, nats per token, above which something
        else than the policy is served, and the run stops; rounding to bfloat16 makes hundredths."""
        folder: str = ""
        """Where the log lies, and adapters for a moment; empty means the system's temporary folder."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if bool(self.python) == bool(self.socket):
                raise ValueError("name either python, with which a server is started, or the socket of a running one")

    def __init__(self, config: Config | None = None) -> None:
        """Keep the options; the server starts with the first rollout."""
        super().__init__(config)
        self._link: Link | None = None
        self._number, self._digest = 0, ""  # of the adapter that the server holds

    @override
    def accept(self, family: VisionLanguageFamily) -> None:
        served_checkpoint(family)

    @override
    def close(self) -> None:
        if self._link is not None:
            self._link.close()
        self._link = None

    @override
    @torch.no_grad()
    def generate(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        copies: Sequence[int],
        seeds: Sequence[int],
        *,
        max_new_tokens: int,
        temperature: float,
        version: int,
    ) -> list[Completion]:
        if temperature < LEAST_TEMPERATURE:
            raise ValueError(f"vLLM samples at temperatures from {LEAST_TEMPERATURE} on, got {temperature}")
        self._refuse_long(policy, prompts, max_new_tokens)
        places = [place for place, count in enumerate(copies) for _ in range(count)]
        rows = [prompts[place] for place in places]
        if not rows:
            return []
        request, parts = request_of(policy, prompts)
        factors = acting_adapter(policy)
        try:
            link = self._serving(policy, rank_of(factors))
            request |= {
                "do": "generate",
                "number": self._held(link, factors, version) if factors else 0,
                "temperature": temperature,
                "max_new_tokens": max_new_tokens,
                "rows": list(zip(places, seeds, strict=True)),
            }
            replies = link.ask(request, parts, doing="it wrote rollouts", silence=self.config.silence_s)
            try:
                completions = completions_of(replies, rows, policy.family, max_new_tokens)
                self._compare(policy, rows[0], completions[0], temperature)
            except ValueError as error:
                raise link.failed(f"gave what cannot be used: {error}") from error
        except BaseException:
            self.close()  # in the middle of an exchange no other can begin
            raise
        return completions

    def _refuse_long(self, policy: Policy, prompts: Sequence[Prompt], after: int) -> None:
        limit = min(self.config.context, policy.family.context)
        long = next((prompt for prompt in prompts if len(prompt.ids) + after > limit), None)
        if long is not None:
            raise ValueError(
                f"question {long.question_id!r}: {len(long.ids)} tokens of prompt and max_new_tokens={after} are over "
                f"the {limit} that vLLM is given; raise the engine's context, or lower max_new_tokens"
            )

    def _serving(self, policy: Policy, rank: int) -> Link:
        """The line to a server that has the policy's checkpoint loaded."""
        c = self.config
        if self._link is None:
            settings = {
                **served_checkpoint(policy.family),
                "max_model_len": min(c.context, policy.family.context),
                "max_num_seqs": c.rows_at_once,
                "gpu_memory_utilization": c.gpu_memory_utilization,
                "tensor_parallel_size": c.tensor_parallel_size,
                "enforce_eager": c.enforce_eager,
                "max_lora_rank": room_for(rank),
            }
            self._link = Link(c.python, c.socket, c.folder, c.cards or card_of(policy.device))
            request = {"do": "open", "settings": settings}
            *_, reply = self._link.ask(request, doing="it loaded the model", silence=c.start_s)
            self._number, self._digest = int(reply.get("adapters", 0)), ""
        return self._link

    def _held(self, link: Link, factors: Factors, version: int) -> int:
        """The number under which the server holds these factors: a new one whenever they are not those it has."""
        if (name := digest(factors)) == self._digest:
            return self._number
        self._number, self._digest = self._number + 1, name
        folder = link.folder / f"adapter-{self._number}"
        write_peft(folder, factors)
        request = {"do": "adapter", "number": self._number, "folder": str(folder)}
        doing = f"it loaded the adapter of version {version}"
        list(link.ask(request, doing=doing, silence=self.config.silence_s))
        shutil.rmtree(folder)
        return self._number

    def _compare(self, policy: Policy, prompt: Prompt, completion: Completion, temperature: float) -> None:
        """Refuse a server that serves something else than the policy."""
        own = policy.logps([prompt], [completion.ids], temperature)[0].cpu()
        drift = float((own - torch.tensor(completion.logps)).abs().mean())
        if not drift <= self.config.most_drift:
            raise ValueError(
                f"log-probabilities are {drift:.3g} nats per token from the policy's own, over "
                f"most_drift={self.config.most_drift:g}; does it serve another checkpoint, or another revision?"
            )


def card_of(device: torch.device) -> str:
    """CUDA_VISIBLE_DEVICES that shows another process one device of ours; empty where it is none."""
    if device.type != "cuda":
        return ""
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    number = device.index if device.index is not None else torch.cuda.current_device()
    return visible[number] if visible else str(number)
