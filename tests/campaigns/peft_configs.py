"""Adapters that PEFT saves, drawn from a seed: every setting that users meet, in every spelling of tensor names.

`outcome(seed, folder)` lets PEFT save one, adopts it, and holds our forward pass to PEFT's: it gives "equal", or
"refused" where PEFT's own layers say that it is no plain LoRA on the language model. Anything else raises.
"""

import copy
import json
import random
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import Embedding, LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from artifacts.adapter_checks import AdapterError
from artifacts.adapter_files import base_fingerprint, read_adapter
from artifacts.adoption import adopt
from lightning_modules.families.lite0_smollm2 import Lite0SmolLM2
from lightning_modules.families.tiny import TinyQwen2_5_VL
from lightning_modules.policy import Policy
from merge.peft_layout import task_vector_of
from tests.conftest import made_example
from tests.slow_reference import llama_inputs, qwen_inputs, stock_attention

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
FAMILIES = ("qwen", "qwen_untied", "llama")
COMPLETION = [25, 26, 27, 28, 29]
SPELLINGS: dict[str, Callable[[str], str]] = {
    "current": lambda name: name,
    "adapter_name": lambda name: re.sub(r"(lora_[AB])\.", r"\1.default.", name),
    "other_adapter_name": lambda name: re.sub(r"(lora_[AB])\.", r"\1.expert_2.", name),
    "no_prefix": lambda name: name.removeprefix("base_model.model."),
    "double_prefix": lambda name: f"base_model.model.{name}",
    "data_parallel": lambda name: f"module.{name}",
    "compiled": lambda name: f"_orig_mod.{name}",
    "checkpointed": lambda name: re.sub(r"(layers\.\d+)\.", r"\1._checkpoint_wrapped_module.", name),
    "old": lambda name: name.replace("model.language_model.", "model.").replace("model.model.visual", "model.visual"),
    "older": lambda name: name.replace("model.language_model.", "language_model.model."),
}
DAMAGES = ("shape", "partner", "layer", "rank", "nan")
REFUSALS = {
    "pictures": "reads pictures",
    "embedding": "update of the embeddings",
    "dora": "use_dora",
    "bias": "bias='",
    "lora_bias": "lora_bias=True",
    "modules_to_save": "modules_to_save=",
    "tokens": "trainable_token_indices",
    "init": "init_lora_weights=",
    "changed": "differs from the base's",
    "shape": "the update is|expected \\(r, n\\)",
    "partner": "but not its partner",
    "layer": "no such layer",
    "rank": "the configuration says rank",
    "nan": "NaN or infinity",
    "order": "the one in force is not known",
}
"""Why an adapter must be refused -> what the message says then."""


@dataclass(frozen=True)
class Case:
    """One adapter to be made."""

    family: str
    settings: dict
    spelling: str
    dtype: torch.dtype
    embeddings: str
    damage: str | None


@cache
def pristine(name: str):
    """A tiny random family of three language layers, or two."""
    if name == "llama":
        return Lite0SmolLM2(Lite0SmolLM2.Config(random=True))
    sizes = {"hidden": 32, "layers": 3, "heads": 2, "intermediate": 48, "vision_hidden": 32, "vision_layers": 2}
    family = TinyQwen2_5_VL(TinyQwen2_5_VL.Config(corpus="tests.conftest.corpus", **sizes))
    if name == "qwen_untied":
        family.model.lm_head.weight = nn.Parameter(family.model.lm_head.weight.detach().flip(0).clone())
        family.model.config.tie_word_embeddings = family.model.config.text_config.tie_word_embeddings = False
    return family


def drawn(seed: int) -> Case:
    """The seed's adapter. Most are plain; each oddity has a few in a hundred."""
    rng = random.Random(seed)
    family = rng.choice(FAMILIES)
    root = "model." if family == "llama" else "model.language_model."
    names = [n for n, m in pristine(family).model.named_modules() if isinstance(m, nn.Linear) and n.startswith(root)]
    few = rng.sample(PROJECTIONS, rng.randint(1, 4))
    attention = rng.sample(PROJECTIONS[:4], rng.randint(1, 4))
    targets = rng.choices(
        [few, attention, f".*{re.escape(root)}.*\\.({'|'.join(few)})", "all-linear", rng.sample(names, 3),
         [*attention, "lm_head"], [*attention, "embed_tokens"]],
        weights=[20, 25, 20, 15, 15, 12, 2],
    )[0]  # fmt: skip
    settings = {
        "r": rng.randint(1, 6),
        "lora_alpha": rng.choice([1, 2, 4, 8, 16]),
        "target_modules": targets,
        "use_rslora": rng.random() < 0.4,
        "lora_dropout": rng.choice([0.0, 0.0, 0.1]),
        "task_type": rng.choice(["CAUSAL_LM", "CAUSAL_LM", None]),
        "init_lora_weights": rng.choices(
            [True, "gaussian", False, "orthogonal", "pissa", "olora"], [50, 20, 20, 5, 2, 2]
        )[0],
    }  # fmt: skip
    if rng.random() < 0.7:
        settings["exclude_modules"] = rng.choices(
            [".*visual.*", [rng.choice(PROJECTIONS)], r".*layers\.1\..*"], [6, 1, 1]
        )[0]
    if rng.random() < 0.25 and isinstance(targets, list):
        settings["layers_to_transform"] = rng.choice([0, [0], [1], [0, 1]])
        settings["layers_pattern"] = rng.choice([None, "layers", ["layers"]])
    for key, low, high in (("rank_pattern", 1, 6), ("alpha_pattern", 1, 16)):
        if rng.random() < 0.4:
            settings[key] = {
                rng.choice([
                    rng.choice(PROJECTIONS), f"layers.{rng.randint(0, 1)}.self_attn.q_proj",
                    f"^{re.escape(root)}layers\\.0\\..*v_proj", r".*\.1\..*_proj", "(q_proj|v_proj|up_proj)", "lm_head",
                ]): rng.randint(low, high)
                for _ in range(rng.randint(1, 3))
            }  # fmt: skip
    oddity = rng.choices(
        [{}, {"use_dora": True}, {"bias": "all"}, {"bias": "lora_only"}, {"lora_bias": True},
         {"modules_to_save": ["lm_head"]}, {"trainable_token_indices": [1, 2]}],
        [88, 2, 2, 2, 2, 2, 2],
    )[0]  # fmt: skip
    spellings = [name for name in SPELLINGS if family != "llama" or not name.startswith("old")]
    return Case(
        family,
        settings | oddity,
        rng.choices(spellings, [4 if name in ("current", "old") else 1 for name in spellings])[0],
        rng.choices([torch.float32, torch.bfloat16, torch.float16], [8, 1, 1])[0],
        rng.choices(["auto", "kept", "changed"], [88, 8, 4])[0],
        rng.choice(DAMAGES) if rng.random() < 0.1 else None,
    )


def saved(case: Case, seed: int, folder: Path) -> tuple[PeftModel, set[str]] | None:
    """Let PEFT save the adapter.

    Returns:
        PEFT's own model, to be held against, and why the adapter must be refused; None where PEFT itself refuses the
        settings.
    """
    model = copy.deepcopy(pristine(case.family).model)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        try:
            wrapped = get_peft_model(model, LoraConfig(**copy.deepcopy(case.settings))).eval()
        except (ValueError, TypeError, NotImplementedError):
            return None
        for name, parameter in wrapped.named_parameters():
            if ".lora_" in name and "magnitude" not in name:
                parameter.data = (0.1 * torch.randn_like(parameter)).to(case.dtype).to(parameter.dtype)
        save = {"auto": "auto"}.get(case.embeddings, True)
        wrapped.save_pretrained(folder, save_embedding_layers=save)
    weights = folder / "adapter_model.safetensors"
    tensors = {SPELLINGS[case.spelling](name): tensor.to(case.dtype) for name, tensor in load_file(weights).items()}
    reasons = why_refused(case, wrapped, tensors)
    config = json.loads((folder / "adapter_config.json").read_text())
    spoil(case, tensors, config)
    if case.spelling.startswith("old"):  # a training of that time had these names in its patterns too
        old = re.escape(SPELLINGS[case.spelling]("model.language_model."))
        for key in ("rank_pattern", "alpha_pattern"):
            config[key] = {n.replace(re.escape("model.language_model."), old): v for n, v in config[key].items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, weights)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return wrapped, reasons


def why_refused(case: Case, wrapped: PeftModel, tensors: dict[str, Tensor]) -> set[str]:
    """Every reason that PEFT's own layers and the drawn oddities give."""
    layers = {name: module for name, module in wrapped.named_modules() if isinstance(module, LoraLayer)}
    settings = case.settings
    whole = [name for name in tensors if ".lora_" not in name]
    found = {
        "pictures": any("visual" in name for name in layers),
        "embedding": any(isinstance(module, Embedding) for module in layers.values()),
        "dora": settings.get("use_dora"),
        "bias": settings.get("bias", "none") != "none",
        "lora_bias": settings.get("lora_bias"),
        "modules_to_save": settings.get("modules_to_save"),
        "tokens": settings.get("trainable_token_indices"),
        "init": settings["init_lora_weights"] in ("pissa", "olora"),
        "changed": case.embeddings == "changed" and whole,
        "order": any(len(alphas_of(case, name)) > 1 for name in layers),
    }
    return {name for name, holds in found.items() if holds} | ({case.damage} if case.damage else set())


def alphas_of(case: Case, layer: str) -> set[int]:
    """Every alpha that a layer may have had: PEFT takes the first key that matches, and sorts the keys on disk."""
    own = layer.removeprefix("base_model.model.")
    spelled = SPELLINGS[case.spelling](own) if case.spelling == "checkpointed" else own
    ways = [
        [alpha for key, alpha in case.settings.get("alpha_pattern", {}).items() if re.match(rf"(.*\.)?({key})$", name)]
        for name in (own, spelled)
    ]
    return {alpha for found in ways for alpha in found or [case.settings["lora_alpha"]]}


def spoil(case: Case, tensors: dict[str, Tensor], config: dict) -> None:
    """Damage what was saved, as the case says."""
    first = min(name for name in tensors if ".lora_A" in name or "embedding_A" in name)
    if case.embeddings == "changed":
        for name in tensors:
            if ".lora_" not in name:
                tensors[name] = tensors[name] * 1.5
    if case.damage == "shape":
        tensors[first] = tensors[first][:, :-1]
    elif case.damage == "partner":
        del tensors[first]
    elif case.damage == "layer":
        for name in [name for name in tensors if ".lora_" in name]:
            tensors[f"{name.removesuffix(name[name.index('.lora_') :])}_9{name[name.index('.lora_') :]}"] = tensors.pop(
                name
            )
    elif case.damage == "rank":
        config.update(r=97, rank_pattern={})
    elif case.damage == "nan":
        tensors[first][0, 0] = torch.nan


def outcome(seed: int, folder: Path) -> str:
    """Save, adopt and compare; see the module's docstring.

    Raises:
        AssertionError: it is taken in and acts otherwise, or refused without need, or not for its reason.
    """
    case = drawn(seed)
    made = saved(case, seed, folder / "peft")
    if made is None:
        return "refused by PEFT"
    wrapped, reasons = made
    policy = Policy(copy.deepcopy(pristine(case.family)))
    fingerprint = base_fingerprint(policy.family.named_parameters())
    try:
        adopt(folder / "peft", folder / "adapter", base=policy.base(fingerprint))
    except AdapterError as error:
        said = str(error)
        assert any(re.search(REFUSALS[reason], said) for reason in reasons), f"{case}: refused, {reasons}: {said}"
        assert not (folder / "adapter").exists()
        return "refused"
    assert not reasons, f"{case}: taken in, though {reasons}"
    adapter = read_adapter(folder / "adapter", base_fingerprint=fingerprint)
    policy.load_adapter("adopted", adapter.config, adapter.tensors)
    policy.activate(["adopted"])
    with torch.no_grad():
        prompt = policy.prompt(made_example(1), "")
        expected = stock_logits(policy, wrapped, prompt)
        plain = stock_logits(policy, copy.deepcopy(pristine(case.family).model), prompt)
        assert not torch.allclose(expected, plain, atol=1e-4), f"{case}: the drawn update does nothing"
        ways = {"acting": our_logits(policy, prompt)}
        with policy.folded():
            ways["folded"] = our_logits(policy, prompt)
        policy.activate(())
        ways["bare"] = our_logits(policy, prompt) + expected - plain
    for way, found in ways.items():
        apart = float((found - expected).abs().max())
        limit = 1e-4 if way == "folded" else 1e-5  # folding adds the update to the weights, which rounds it
        assert apart <= limit * max(1.0, float(expected.abs().max())), f"{case}: {way}, logits apart by {apart:.2e}"
    check_updates(wrapped, task_vector_of(adapter))
    check_plain_peft(case, folder / "adapter", expected, policy, prompt)
    return "equal"


def stock_logits(policy: Policy, model: nn.Module, prompt) -> Tensor:
    """(L, V) by transformers' own forward of a model."""
    family, ids = policy.family, torch.tensor([[*prompt.ids, *COMPLETION]])
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    with stock_attention(inner):
        if family.model.config.model_type == "qwen2_5_vl":
            return model(**qwen_inputs(family, ids, prompt)).logits[0]
        return model(**llama_inputs(family, ids, prompt)).logits[0]


def our_logits(policy: Policy, prompt) -> Tensor:
    """(L, V) by the fast path."""
    return policy.family.logits(policy.hidden_states(policy.line([prompt], [COMPLETION])))


def check_updates(wrapped: PeftModel, vector) -> None:
    """What a merge would add is what PEFT adds, layer by layer."""
    layers = {n: m for n, m in wrapped.get_base_model().named_modules() if isinstance(m, LoraLayer)}
    assert set(layers) == set(vector)
    for name, layer in layers.items():
        torch.testing.assert_close(vector.delta(name), layer.get_delta_weight("default"), rtol=1e-5, atol=1e-6)


def check_plain_peft(case: Case, adapter: Path, expected: Tensor, policy: Policy, prompt) -> None:
    """Plain PEFT loads what was adopted, and it acts alike."""
    with warnings.catch_warnings(record=True) as told:
        again = PeftModel.from_pretrained(copy.deepcopy(pristine(case.family).model), adapter).eval()
    assert not any("missing adapter keys" in str(one.message) for one in told), f"{case}: {told}"
    apart = float((stock_logits(policy, again, prompt) - expected).abs().max())
    assert apart <= 1e-5 * max(1.0, float(expected.abs().max())), f"{case}: plain PEFT apart by {apart:.2e}"
