# Reference: safetensors' own reading of the whole file. Run: pytest <this file>
import os
import random

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from artifacts import stored_weights
from artifacts.adapter_files import base_fingerprint
from artifacts.stored_weights import StoredParameter, in_files, read_stored, standing_in

SHAPES = [(), (0,), (1,), (7,), (3, 5), (64, 3), (2, 3, 4), (5, 0), (1, 200)]


@pytest.fixture(params=[torch.float32, torch.bfloat16, torch.float16])
def file(request, tmp_path):
    generator = torch.Generator().manual_seed(3)
    tensors = {f"w{n}": torch.randn(shape, generator=generator).to(request.param) for n, shape in enumerate(SHAPES)}
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_and_the_fingerprint_are_those_of_the_whole(file, dtype, monkeypatch):
    monkeypatch.setattr(stored_weights, "NUMBERS_AT_ONCE", 10)
    whole = {name: tensor.to(dtype) for name, tensor in load_file(file).items()}
    stored = {name: found.to(dtype=dtype) for name, found in in_files([file]).items()}
    draw = random.Random(0)
    for name, tensor in whole.items():
        assert stored[name].is_meta
        assert torch.equal(stored[name].rows(), tensor)
        if tensor.ndim:
            start = draw.randrange(len(tensor) + 1)
            stop = draw.randrange(start, len(tensor) + 1)
            assert torch.equal(stored[name].rows(start, stop), tensor[start:stop])
            assert max((len(piece) for piece in stored[name].pieces() if tensor[0].numel() > 10), default=1) == 1
    assert base_fingerprint(stored.items()) == base_fingerprint(whole.items())


def test_a_file_that_changes_after_it_was_identified_is_not_read(file):
    other = file.with_name("other")
    save_file({name: tensor + 1 for name, tensor in load_file(file).items()}, other)
    weight = in_files([file])["w4"].to(dtype=torch.float32)
    weight.rows()
    os.replace(other, file)
    with pytest.raises(RuntimeError, match="changed since the model was built on it"):
        weight.rows()


def test_layers_that_share_a_stored_weight_go_on_sharing_it(tmp_path):
    save_file({"a": torch.ones(4, 3), "b": torch.full((4, 3), 2.0)}, tmp_path / "model.safetensors")
    found = {key: place.to(dtype=torch.float32) for key, place in in_files([tmp_path / "model.safetensors"]).items()}
    model = nn.ModuleList(nn.Linear(3, 4, bias=False) for _ in range(3))
    for layer, key in zip(model, "aab", strict=True):
        layer.weight = found[key]
    with standing_in(model):
        assert [(layer.weight.device.type, float(layer.weight.sum())) for layer in model] == [("cpu", 0.0)] * 3
    read_stored(model, but=[found["b"]])
    assert model[0].weight is model[1].weight
    assert torch.equal(model[0].weight, torch.ones(4, 3))
    assert isinstance(model[2].weight, StoredParameter)
