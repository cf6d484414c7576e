# Reference: a whole checkpoint in the hub's layout, which loads, against one with one fault. Run: pytest <this file>
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from configs.checkpoints import CheckpointError
from datamodules.batch import PictureError
from lightning_modules.families.chat_template import TemplateError
from lightning_modules.families.language_model import Llama
from lightning_modules.families.qwen2_5_vl import Qwen2_5_VL
from lightning_modules.families.qwen3_vl import Qwen3VL
from lightning_modules.policy import Policy
from tests.conftest import made_example
from tests.lightning_modules.families.shapes import LLAMA, QWEN2_5_VL, QWEN3_VL


@pytest.fixture
def folder(tmp_path):
    return QWEN2_5_VL.write(tmp_path / "hub", tied=False)


APART = pytest.mark.parametrize("apart", [False, True], ids=["whole", "blocks in files"])


def load(folder, family=Qwen2_5_VL, *, apart=False, **settings):
    return family(family.Config(path=str(folder), dtype="float32", **settings), blocks_in_files=apart)


def change(path, **more):
    path.write_text(json.dumps(json.loads(path.read_text()) | more))


def in_shards(folder, act):
    """Change the tensors of each shard, and its index with it."""
    listed = json.loads((folder / "model.safetensors.index.json").read_text())
    listed["weight_map"] = {}
    for shard in sorted(folder.glob("*.safetensors")):
        tensors = act(load_file(shard))
        save_file(tensors, shard, metadata={"format": "pt"})
        listed["weight_map"] |= dict.fromkeys(tensors, shard.name)
    (folder / "model.safetensors.index.json").write_text(json.dumps(listed))


def without(part):
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if part not in name}


def renamed(old, new):
    return lambda tensors: {name.replace(old, new): tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (without("layers.1.mlp.up_proj"), ["1 tensors are missing", "layers.1.mlp.up_proj.weight", "incomplete"]),
        (without("visual.blocks.0"), ["tensors are missing", "visual.blocks.0.attn.proj.bias", ", …"]),
        (without("lm_head"), ["lm_head.weight", "tie_word_embeddings: true"]),
        (renamed("up_proj", "up_projection"), ["tensors are missing", "not this model's", "different models"]),
        (renamed("layers.1.mlp.up_proj.", "layers.1.mlp.up_proj.base_layer."), ["base_layer", "merge it first"]),
    ],
    ids=["missing", "missing of the tower", "no head", "renamed", "an adapter saved with its base"],
)
@APART
def test_a_checkpoint_that_is_not_whole_is_refused_by_the_tensors_names(folder, act, said, apart):
    load(folder, apart=apart)
    in_shards(folder, act)
    with pytest.raises(CheckpointError) as error:
        load(folder, apart=apart)
    assert all(part in str(error.value) for part in said), error.value


@APART
def test_a_tensor_too_many_is_refused(folder, apart):
    more = {"model.layers.7.mlp.up_proj.weight": torch.zeros(48, 32)}
    in_shards(folder, lambda tensors: tensors | (more if "lm_head.weight" in tensors else {}))
    with pytest.raises(CheckpointError, match=r"1 tensors are not this model's: .*layers\.7.*smaller model"):
        load(folder, apart=apart)


@APART
def test_a_tensor_of_another_shape_is_refused(folder, apart):
    in_shards(folder, lambda tensors: {n: t[:-1].clone() if "q_proj.bias" in n else t for n, t in tensors.items()})
    with pytest.raises(CheckpointError, match=r"layers\.0\.self_attn\.q_proj\.bias"):
        load(folder, apart=apart)


@APART
def test_a_missing_or_cut_shard_is_refused(folder, apart):
    shard = sorted(folder.glob("*.safetensors"))[1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=f"{shard.name}: .*safetensors files there, and whole"):
        load(folder, apart=apart)
    shard.unlink()
    with pytest.raises(CheckpointError, match=shard.name):
        load(folder, apart=apart)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({"weight_map": {"lm_head.weight": "../../else.safetensors"}}, "else.safetensors', which is no file beside it"),
        ({"weight_map": {"lm_head.weight": 3}}, "names 3, which is no file"),
        ({"weight_map": None}, "says of no tensor where it is"),
        ([], "says of no tensor where it is"),
    ],
)
def test_an_index_that_leads_elsewhere_is_not_followed(folder, index, said):
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=said):
        load(folder, apart=True)


def test_a_checkpoint_without_its_picture_processor_is_refused(folder):
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"picture processor cannot be read: .*preprocessor_config\.json there"):
        load(folder)


@APART
def test_pickled_weights_are_not_opened(folder, apart):
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="safetensors"):
        load(folder, apart=apart)


def test_a_checkpoint_of_another_family_never_loads(folder, tmp_path):
    other = QWEN3_VL.write(tmp_path / "qwen3", tied=False)
    for path, family, own in ((other, Qwen2_5_VL, "qwen3_vl"), (folder, Qwen3VL, "qwen2_5_vl"), (folder, Llama, "_vl")):
        for outline in (False, True):
            with pytest.raises(CheckpointError, match=f"its model_type is '.*{own}'"):
                family(family.Config(path=str(path)), outline=outline)


@pytest.mark.parametrize(
    ("file", "more", "said"),
    [
        ("config.json", {"quantization_config": {"quant_method": "awq"}}, "quantised by awq.*quantize: nf4"),
        ("config.json", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, "sliding_attention"),
        ("tokenizer_config.json", {"chat_template": None}, "has no chat template"),
    ],
)
def test_what_would_be_computed_otherwise_is_refused(folder, file, more, said):
    (folder / "chat_template.json").unlink()
    change(folder / file, **more)
    with pytest.raises(CheckpointError, match=said):
        load(folder)


def test_a_template_of_another_model_is_refused(folder):
    other = QWEN2_5_VL.template.replace("<|image_pad|>", "<image>")
    change(folder / "chat_template.json", chat_template=other)
    with pytest.raises(TemplateError, match=r"marks 0 of 1 pictures by <\|image_pad\|>"):
        load(folder).prompt_ids("which?", [1])
    change(folder / "chat_template.json", chat_template="{% for m in messages %}{{ m.content }}{% endfor %}")
    with pytest.raises(TemplateError, match="no control token"):
        load(folder)


def test_the_processor_s_template_goes_before_the_tokenizer_s(folder):
    change(folder / "chat_template.json", chat_template=QWEN2_5_VL.template.replace("helpful", "careful"))
    assert "careful" in (family := load(folder)).tokenizer.decode(family.prompt_ids("which?", []))
    (folder / "chat_template.jinja").write_text(QWEN2_5_VL.template.replace("helpful", "curious"))
    assert "curious" in (family := load(folder)).tokenizer.decode(family.prompt_ids("which?", []))


def test_limits_are_the_checkpoint_s_unless_they_are_set_and_the_origin_says_so(folder):
    change(folder / "preprocessor_config.json", min_pixels=784, max_pixels=7840, image_mean=[0.1, 0.2, 0.3])
    own, other = load(folder), load(folder, max_pixels=3136, system="be brief")
    assert (own.to_input.tokens(500, 500), other.to_input.tokens(500, 500)) == (9, 4)
    facts = own.origin["checkpoint"]["pictures"]
    assert (facts["size"], facts["image_mean"]) == ({"shortest_edge": 784, "longest_edge": 7840}, [0.1, 0.2, 0.3])
    assert facts["replaced"] == []
    changed = other.origin["checkpoint"]["pictures"]
    assert (changed["size"]["longest_edge"], changed["replaced"]) == (3136, ["max_pixels"])
    assert "be brief" in other.tokenizer.decode(other.prompt_ids("which?", []))
    json.dumps(other.origin)
    outline = Qwen2_5_VL(Qwen2_5_VL.Config(path=str(folder)), outline=True)
    assert outline.prompt_ids("which?", [3]) == own.prompt_ids("which?", [3])
    assert outline.to_input.tokens(500, 500) == 9
    assert {parameter.device.type for parameter in outline.parameters()} == {"meta"}


@APART
def test_the_commit_of_a_hub_repository_is_recorded(tmp_path, monkeypatch, apart):
    commit, home = "0123456789abcdef0123456789abcdef01234567", tmp_path / "cache"
    repository = home / "models--lab--vl"
    QWEN2_5_VL.write(repository / "snapshots" / commit, tied=False)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    family = load("lab/vl", apart=apart)
    assert family.origin["init_args"]["revision"] == family.origin["checkpoint"]["commit"] == commit


def test_a_language_model_refuses_pictures_by_name(tmp_path):
    family = load(LLAMA.write(tmp_path / "hub", tied=True), Llama)
    with pytest.raises(PictureError, match="is a language model and reads no pictures"):
        Policy(family).prompt(made_example(0), "")
    assert Policy(family).prompt(made_example(0, sizes=()), "").ids[0] == family.tokenizer.bos_token_id
