# Reference: the inputs and results of every operator of a real step, counted. Run: pytest <this file>
from dataclasses import replace

import pytest
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.gpu import made
from benchmarks.gpu.sizes import SIZES
from benchmarks.gpu.traffic import columns_read, per_token
from benchmarks.gpu.training import let_act
from lightning_modules.adapters import LoRASettings
from lightning_modules.policy import Policy
from lightning_modules.rollout import sample
from lightning_modules.row_cache import FixedRowCache, RowCache


def storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


class Moved(TorchDispatchMode):
    """Bytes of what operators take and give, by whose they are; views and writes in place are nobody's."""

    def __init__(self, kinds: dict[int, str], vocabulary: int) -> None:
        super().__init__()
        self.kinds, self.vocabulary = kinds, vocabulary
        self.bytes = dict.fromkeys(("weights", "factors", "cache", "logits"), 0)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given, taken = ([t for t in tree_leaves(held) if isinstance(t, Tensor)] for held in (out, (args, kwargs or {})))
        made = {storage(t) for t in given}
        for tensor in taken:
            kind = self.kinds.get(storage(tensor))
            if kind is not None and storage(tensor) not in made and self.is_read(func, kind, tensor):
                self.bytes[kind] += tensor.nbytes
        if not made & {storage(t) for t in taken}:
            for tensor in (*given, *taken):
                if tensor.dim() == 2 and tensor.shape[1] == self.vocabulary and storage(tensor) not in self.kinds:
                    self.bytes["logits"] += tensor.nbytes if func.__name__ not in FEW else 0
        return out

    def is_read(self, func, kind: str, tensor: Tensor) -> bool:
        """Neither for a row of embeddings, nor a vector."""
        return kind != "weights" or (tensor.dim() == 2 and func.__name__ not in FEW)


FEW = ("gather.default", "searchsorted.Tensor", "embedding.default", "slice.Tensor")
"""Operators that read few of the numbers that they are given."""


def counted(policy: Policy, rows: int, tokens: int, monkeypatch) -> dict[str, int]:
    """What so many tokens of every row move, prompts and preparations included."""
    prompt = policy.prompt(made.questions(SIZES["tiny"], 1, 3000)[0], "")
    head = policy.family.model.get_output_embeddings().weight
    kinds = {storage(p): "weights" for block in policy.family.blocks() for p in block.parameters()}
    kinds |= {storage(head): "weights"}
    init = RowCache.__init__

    def kept(cache, *given):
        init(cache, *given)
        kinds.update({storage(buffer): "cache" for pair in cache.buffers.values() for buffer in pair})

    monkeypatch.setattr(RowCache, "__init__", kept)
    with made.endless(policy), policy.folded():
        for layer in policy._layers:
            kinds.update({storage(factor): "factors" for factor in layer.__dict__.get("_stacked", ())[1:]})
        with Moved(kinds, head.shape[0]) as moved:
            sample(policy, [prompt], copies=rows, seeds=list(range(rows)), max_new_tokens=tokens)
    return moved.bytes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rows", [1, 5])
def test_bytes_from_shapes_are_those_that_operators_are_given(dtype, rows, monkeypatch):
    policy = made.policy_of(replace(SIZES["tiny"], dtype=dtype), "cpu")
    for name, rank in (("under", 3), ("over", 4)):
        policy.add_adapter(name, LoRASettings(rank))
        policy.activate([name], trainable=name)
        let_act(policy)
    policy.activate(["under", "over"])
    few, many = (counted(policy, rows, tokens, monkeypatch) for tokens in (4, 8))
    prompt = len(policy.prompt(made.questions(SIZES["tiny"], 1, 3000)[0], "").ids)
    found = per_token(policy, rows, prompt + (4 + 5 + 6 + 7) / 4)
    each = {name: (many[name] - few[name]) // 4 for name in many}
    if dtype == "bfloat16":  # a processor copies the head into fp32, in the shape of logits
        each["logits"] = found["logits"]
    assert found == each
    assert (found["factors"] > 0) == (dtype == "bfloat16")


@pytest.mark.parametrize("tokens", [2, 17, 40])
def test_columns_are_those_of_the_caches(tokens, monkeypatch):
    policy = made.policy_of(SIZES["tiny"], "cpu")
    prompt = policy.prompt(made.questions(SIZES["tiny"], 1, 3000)[0], "")
    line = policy.line([prompt], [()], keep=True)
    policy.hidden_states(line)
    fixed = FixedRowCache(line.packing, [0], tokens - 1)
    assert columns_read(len(prompt.ids), tokens, recorded=True) == fixed.filled
    seen = [len(prompt.ids) + written for written in range(1, tokens)]
    assert columns_read(len(prompt.ids), tokens, recorded=False) == sum(seen) / len(seen)
