"""Read a llama-architecture language model and its tokenizer out of one GGUF file, in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from lightning_modules.families.gguf_file import GGUFError, GGUFFile

CONTROL = 3
"""llama.cpp's token type of control tokens."""

SUPPORTED = ("llama", "gpt2", "smollm")
"""Architecture, tokenizer, and how text is cut before the merges."""

TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def load_llama(path: Path, control: tuple[str, str]) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Dequantise a model and rebuild its tokenizer.

    Args:
        path: the `.gguf` file.
        control: the tokens that end a turn and that fill rows.

    Raises:
        GGUFError: the file is not whole, or its architecture is not llama with byte-level BPE.
    """
    file = supported(path)
    return read_model(file), read_tokenizer(file, *control)


def outline_llama(path: Path, control: tuple[str, str]) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The same without weights; arguments and errors as of `load_llama`."""
    file = supported(path)
    with torch.device("meta"):
        model = LlamaForCausalLM(model_config(file, tied=True))
    return model, read_tokenizer(file, *control)


def supported(path: Path) -> GGUFFile:
    """A file of the kind that is read here; errors as of `load_llama`."""
    file = GGUFFile(path)
    keys = ("general.architecture", "tokenizer.ggml.model", "tokenizer.ggml.pre")
    kind = tuple(file.metadata.get(key) for key in keys)
    if kind != SUPPORTED:
        raise GGUFError(f"{path}: {keys} are {kind}, this loader reads {SUPPORTED} alone")
    return file


def read_model(file: GGUFFile) -> LlamaForCausalLM:
    """Build transformers' Llama and put the dequantised weights into it."""
    meta = file.metadata
    heads, kv_heads = meta["llama.attention.head_count"], meta["llama.attention.head_count_kv"]
    state = {}
    for stored in file.tensor_names:
        name, weight = transformers_name(stored), file.tensor(stored)
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            weight = halves_from_pairs(weight, heads if "q_proj" in name else kv_heads)
        state[name] = torch.from_numpy(np.ascontiguousarray(weight))
    return llama_with(model_config(file, tied="lm_head.weight" not in state), state)


def model_config(file: GGUFFile, *, tied: bool) -> LlamaConfig:
    """The sizes of a file's model in transformers' words; `tied` says whether its head is its embedding."""
    meta = file.metadata
    return LlamaConfig(
        vocab_size=len(meta["tokenizer.ggml.tokens"]),
        hidden_size=meta["llama.embedding_length"],
        intermediate_size=meta["llama.feed_forward_length"],
        num_hidden_layers=meta["llama.block_count"],
        num_attention_heads=meta["llama.attention.head_count"],
        num_key_value_heads=meta["llama.attention.head_count_kv"],
        max_position_embeddings=meta["llama.context_length"],
        rms_norm_eps=meta["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": meta["llama.rope.freq_base"]},
        tie_word_embeddings=tied,
        bos_token_id=meta["tokenizer.ggml.bos_token_id"],
        eos_token_id=meta["tokenizer.ggml.eos_token_id"],
    )


def llama_with(config: LlamaConfig, state: dict[str, Tensor]) -> LlamaForCausalLM:
    """A Llama that holds these very tensors; tied embeddings stay tied."""
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    if config.tie_word_embeddings:
        state = {**state, "lm_head.weight": state["model.embed_tokens.weight"]}
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    model.model.rotary_emb = LlamaRotaryEmbedding(config)  # its frequencies are computed, not stored
    return model.eval()


def transformers_name(name: str) -> str:
    """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`."""
    parts = name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{LAYER[parts[2]]}.{parts[3]}"
    return f"{TOP[parts[0]]}.{parts[1]}"


def halves_from_pairs(weight: np.ndarray, heads: int) -> np.ndarray:
    """Undo the row order of llama.cpp's rotary embedding, which turns neighbours (2i, 2i + 1) of a head.

    transformers turns (i, i + D / 2) instead; both are one rotation in another order of the D rows.

    Args:
        weight: (heads * D, H), rows of a head in pairs.
        heads: query or key heads.

    Returns:
        (heads * D, H), the even rows of each head before its odd rows.
    """
    rows = weight.shape[0] // heads
    return weight.reshape(heads, rows // 2, 2, -1).swapaxes(1, 2).reshape(weight.shape)


def read_tokenizer(file: GGUFFile, eos: str, pad: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE with single digits, from the vocabulary and merges in the file.

    Choice: digits are cut off first, as llama.cpp does for "smollm". The conversion in transformers 5.23 overlooks that
        and so cuts white space before a digit otherwise: two line feeds and a 3 are three tokens there, two here.
    """
    tokens, kinds = file.metadata["tokenizer.ggml.tokens"], file.metadata["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in file.metadata["tokenizer.ggml.merges"]]
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL]
    backend = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    return chat_tokenizer(backend, special, eos, pad)


def chat_tokenizer(backend: Tokenizer, special: list[str], eos: str, pad: str) -> PreTrainedTokenizerFast:
    """Wrap a BPE model as SmolLM2's tokenizer is: digits alone, bytes as the alphabet, no prefix space."""
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=eos,
        pad_token=pad,
        additional_special_tokens=[token for token in special if token not in (eos, pad)],
        clean_up_tokenization_spaces=False,
    )
