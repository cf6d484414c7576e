# The slow reference of the fast path: one row at a time, the full prompt, transformers' own forward with its own
# attention, positions and picture code. Nothing is shared, cached or packed.
from contextlib import contextmanager

import torch

from lightning_modules.packing import ATTENTION


def stock_log_distribution(policy, prompt, completion, temperature=1.0):
    """(T, V) log-probabilities at every place of a completion."""
    family, ids = policy.family, torch.tensor([[*prompt.ids, *completion]])
    with stock_attention(family.model):
        logits = family.model(**stock_inputs(family, ids, prompt)).logits[0]
    logits = logits[-len(completion) - 1 : -1].index_fill(-1, policy.banned, -torch.inf)
    return (logits / temperature).log_softmax(-1)


def stock_logps(policy, prompt, completion, temperature=1.0):
    """(T,) log-probabilities of a completion's tokens."""
    log_probs = stock_log_distribution(policy, prompt, completion, temperature)
    return log_probs.gather(-1, torch.tensor(completion)[:, None])[:, 0]


@contextmanager
def stock_attention(model):
    """Give the model transformers' own attention for a while."""
    config = getattr(model.config, "text_config", model.config)
    model.set_attn_implementation({"text_config": "sdpa"} if config is not model.config else "sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation({"text_config": ATTENTION} if config is not model.config else ATTENTION)


def stock_inputs(family, ids, prompt):
    """The arguments of the stock model's forward."""
    return INPUTS.get(family.model.config.model_type, llama_inputs)(family, ids, prompt)


def qwen_inputs(family, ids, prompt):
    inputs = {"input_ids": ids, "mm_token_type_ids": (ids == family.image_token_id).int()}
    if prompt.images:
        inputs["pixel_values"] = torch.cat([item.pixels for _, item in prompt.images])
        inputs["image_grid_thw"] = torch.tensor([item.grid for _, item in prompt.images])
    return inputs


def llama_inputs(family, ids, prompt):
    embeds = family.model.get_input_embeddings()(ids).clone()
    for place, feature in zip(
        (ids[0] == family.image_token_id).nonzero()[:, 0].tolist(),
        [token for _, item in prompt.images for token in family.encode_images([item])[0]],
        strict=True,
    ):
        embeds[0, place] = feature
    return {"inputs_embeds": embeds}


def tile_inputs(family, ids, prompt):
    pixels = [item.pixels for _, item in prompt.images]
    return {"input_ids": ids, **({"pixel_values": torch.cat(pixels)} if pixels else {})}


def gemma_inputs(family, ids, prompt):
    return {**tile_inputs(family, ids, prompt), "token_type_ids": (ids == family.image_token_id).int()}


def idefics_inputs(family, ids, prompt):
    inputs = tile_inputs(family, ids, prompt)
    return {name: tensor[None] if name == "pixel_values" else tensor for name, tensor in inputs.items()}


INPUTS = {
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl"), qwen_inputs),
    "gemma3": gemma_inputs,
    **dict.fromkeys(("idefics3", "smolvlm"), idefics_inputs),
    "internvl": tile_inputs,
}
"""model_type -> what the stock forward takes; of others, embeddings in which the features stand."""
