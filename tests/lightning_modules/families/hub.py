"""Checkpoints as the hub has them, in small: real configuration classes and key names, several shards, bf16.

A family's `Shape` is all that its contract needs; see `shapes.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

SHARDS = 3
WORDS = (
    "user\nassistant\nsystem\nYou are a helpful assistant.\n\n\nwhich heart is wide? A) narrow B) wide C) both\n\n"
    "<think>heart 62 of 110, so the answer is wide, option B.</think><answer>B</answer> really really\n\n\n\n"
)


@dataclass(frozen=True)
class Shape:
    """One kind of checkpoint.

    Attributes:
        family: our class.
        config: what its config.json says, but for the vocabulary's size; see `filled`.
        added: (control or other added token, whether it is special), in the order of their numbers.
        end: of an assistant's turn.
        other_ends: tokens at which generation stops too, as generation_config.json says.
        template: its chat template.
        preprocessor: its preprocessor_config.json; None in a language model.
        on_disk: pattern of a name in memory -> what the file has in its place; the first that matches counts.
        shown: what the processor writes for a picture of so many places, in the place of `mark`.
        mark: what the template writes for a picture.
        bos: the first token, where the template writes one.
        sizes: of pictures in the tests, (height, width).
        before_reply: what the template writes between a prompt and the reply.
        bpe: words and merges of the tokenizer; None trains a few.
        named: added tokens that the tokenizer also knows under a name.
        processing: what the stock processor tells the picture processor at every call.
    """

    family: str
    config: Mapping[str, Any]
    added: Sequence[tuple[str, bool]]
    end: str
    template: str
    preprocessor: Mapping[str, Any] | None = None
    on_disk: Mapping[str, str] = field(default_factory=dict)
    shown: Callable[[int], str] | None = None
    mark: str | None = None
    bos: str | None = None
    tokenizer_class: str = "Qwen2Tokenizer"
    sizes: tuple[tuple[int, int], ...] = ((60, 90), (84, 56))
    before_reply: str = ""
    other_ends: tuple[str, ...] = ()
    processing: Mapping[str, Any] = field(default_factory=dict)
    named: Mapping[str, str] = field(default_factory=dict)
    bpe: models.BPE | None = None

    def write(self, folder: Path, *, tied: bool, seed: int = 0) -> Path:
        """Write the checkpoint."""
        folder.mkdir(parents=True)
        self.write_tokenizer(folder)
        self.write_settings(folder, tied=tied)
        model_class = self.family_class.model_class
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = model_class(model_class.config_class.from_pretrained(folder))
            self.save(folder, drawn(model), tied=tied)
        return folder

    def write_settings(self, folder: Path, *, tied: bool) -> None:
        """Write what is neither tokenizer nor weights."""
        config = filled(self.config, folder) | {"tie_word_embeddings": tied, "torch_dtype": "bfloat16"}
        model_class = self.family_class.model_class
        config["architectures"] = [model_class.__name__]
        (folder / "config.json").write_text(json.dumps(config))
        if self.preprocessor is not None:
            (folder / "preprocessor_config.json").write_text(json.dumps(self.preprocessor))
            (folder / "chat_template.json").write_text(json.dumps({"chat_template": self.template}))
        ends = [ids_of(folder)[name] for name in (*self.other_ends, self.end)]
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))

    def save(self, folder: Path, model: PreTrainedModel, *, tied: bool) -> None:
        """Write the weights under the published names, in shards, with their index."""
        tensors = {}
        for name, tensor in model.state_dict().items():
            if not (tied and name == "lm_head.weight"):
                tensors[self.disk_name(name)] = tensor.bfloat16().contiguous()
        names, index = sorted(tensors), {}
        for number in range(SHARDS):
            shard = f"model-{number + 1:05d}-of-{SHARDS:05d}.safetensors"
            held = names[number::SHARDS]
            save_file({name: tensors[name] for name in held}, folder / shard, metadata={"format": "pt"})
            index |= dict.fromkeys(held, shard)
        total = sum(tensor.nbytes for tensor in tensors.values())
        listed = {"metadata": {"total_size": total}, "weight_map": index}
        (folder / "model.safetensors.index.json").write_text(json.dumps(listed))

    def disk_name(self, name: str) -> str:
        """A tensor's published name."""
        for pattern, published in self.on_disk.items():
            if re.match(pattern, name):
                return re.sub(pattern, published, name, count=1)
        return name

    def write_tokenizer(self, folder: Path) -> None:
        """A byte-level BPE with the real added tokens in their order, in the files that the hub has."""
        backend = Tokenizer(models.BPE() if self.bpe is None else self.bpe)
        backend.normalizer = normalizers.NFC()
        cut = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
        backend.pre_tokenizer = pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(False, use_regex=False)])
        backend.decoder = decoders.ByteLevel()
        if self.bpe is None:
            alphabet = pre_tokenizers.ByteLevel.alphabet()
            trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
            backend.train_from_iterator([WORDS] * 20, trainer)
        backend.add_tokens([AddedToken(name, special=special, normalized=False) for name, special in self.added])
        backend.save(str(folder / "tokenizer.json"))
        stored = json.loads((folder / "tokenizer.json").read_text())
        (folder / "vocab.json").write_text(json.dumps(stored["model"]["vocab"]))
        merges = [" ".join(pair) for pair in stored["model"]["merges"]]
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
        said = {
            "tokenizer_class": self.tokenizer_class,
            "eos_token": self.end,
            "pad_token": self.added[0][0],
            "bos_token": self.bos,
            "model_max_length": 1000,
            "clean_up_tokenization_spaces": False,
            "chat_template": self.template,
            "extra_special_tokens": dict(self.named),
            "added_tokens_decoder": {
                str(token["id"]): {k: v for k, v in token.items() if k != "id"} for token in stored["added_tokens"]
            },
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(said))

    @property
    def family_class(self) -> Any:
        """Our class."""
        from configs.build import import_class

        return import_class(self.family)


def said(shape: Shape, text: str, pictures: int = 0, last: bool = False) -> Any:
    """A message's content as the template's users write it."""
    if shape.preprocessor is None:
        return text
    shown, words = [{"type": "image"}] * pictures, [{"type": "text", "text": text}]
    return [*words, *shown] if last else [*shown, *words]


@lru_cache(maxsize=2)
def stock_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """A checkpoint's tokenizer, as transformers loads it."""
    return AutoTokenizer.from_pretrained(folder)


def by_template(shape: Shape, folder: Path, messages: Sequence[Any], counts: Sequence[int]) -> list[int]:
    """What the stock processor does: render, expand, tokenise the whole."""
    tokenizer = stock_tokenizer(folder)
    text = tokenizer.apply_chat_template(
        messages, chat_template=shape.template, tokenize=False, add_generation_prompt=True
    )
    pieces = text.split(shape.mark) if shape.mark else [text]
    assert len(pieces) == len(counts) + 1
    whole = pieces[0] + "".join(shape.shown(n) + rest for n, rest in zip(counts, pieces[1:], strict=True))
    return tokenizer(whole, add_special_tokens=False)["input_ids"]


def ids_of(folder: Path) -> dict[str, int]:
    """Added token -> number."""
    return {t["content"]: t["id"] for t in json.loads((folder / "tokenizer.json").read_text())["added_tokens"]}


def filled(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A configuration whose `{token}` texts are the tokens' numbers, and whose vocabulary has rows to spare."""
    ids = ids_of(folder)
    words = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    rows = max(*ids.values(), *words.values()) + 1 + 7

    def look(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: look(item) for key, item in value.items()}
        if isinstance(value, list):
            return [look(item) for item in value]
        if value == "{rows}":
            return rows
        return ids[value[1:-1]] if isinstance(value, str) and value[:1] == "{" else value

    return look(config)


def drawn(model: PreTrainedModel) -> PreTrainedModel:
    """Random weights whose matrices are scaled by their fan-in: flat logits would hide mistakes."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                fan_in = 1 if "embed" in name and parameter.ndim == 2 else parameter[0].numel()
                parameter.normal_(0, fan_in**-0.5)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.1)
            else:
                parameter.uniform_(0.7, 1.3)
    return model
