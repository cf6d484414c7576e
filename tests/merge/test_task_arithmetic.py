# Reference: dense fp64 sums and PEFT 0.21.2's `cat` combination. Run: pytest tests/merge/test_task_arithmetic.py
import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from torch import nn

from artifacts.adapter_files import Adapter
from merge.factors import add
from merge.methods.cat import Cat
from merge.methods.interface import Experts
from merge.methods.mean import Mean
from merge.methods.task_arithmetic import TaskArithmetic, task_arithmetic
from merge.peft_layout import task_vector_of


def merged(method, vectors, weights):
    module = method.merge(Experts(dict(enumerate(vectors)), weights))
    found = {}
    for name in vectors[0]:
        value = module(name).value
        f = value if isinstance(method, Cat) else value.factors()
        found[name] = f.B @ f.A
    return found


def test_by_hand():
    # 0.5 * (2 * [1, 2] - 1 * [3, 0]) = [-0.5, 2]
    vectors = torch.tensor([[1.0, 2], [3, 0]])
    result = task_arithmetic(vectors, torch.tensor([2.0, -1]), lambda_=0.5)
    torch.testing.assert_close(result, torch.tensor([-0.5, 2.0]))


def test_factors_give_what_dense_matrices_give(vector):
    vectors = [vector(1, rank=2), vector(2, rank=5), vector(3, rank=3)]
    weights = [0.5, -1.0, 2.0]
    for method, scale in ((TaskArithmetic(TaskArithmetic.Config(lambda_=0.7)), 0.7), (Cat(), 1.0)):
        for name, result in merged(method, vectors, weights).items():
            expected = sum(scale * w * v.delta(name).double() for w, v in zip(weights, vectors, strict=True))
            torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-5)
    for name, result in merged(Mean(), vectors, [1.0, 2.0, 5.0]).items():
        expected = sum(w * v.delta(name).double() / 8 for w, v in zip([1, 2, 5], vectors, strict=True))
        torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-5)


def peft_model(settings):
    """A model with one adapter per entry of `settings`, every factor random and seeded."""
    torch.manual_seed(0)  # PEFT and nn.Linear draw from the global generator; everything is overwritten below.
    model = nn.Sequential(nn.Linear(10, 8), nn.Linear(8, 6))
    for number, options in enumerate(settings):
        config = LoraConfig(target_modules=["0", "1"], **options)
        if number:
            model.add_adapter(f"e{number}", config)
        else:
            model = get_peft_model(model, config, adapter_name="e0")
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator)
    return model


def task_vector_from(model, name):
    config = model.peft_config[name].to_dict()
    return task_vector_of(Adapter(config, get_peft_model_state_dict(model, adapter_name=name), {}))


def test_equals_peft_cat_with_unequal_ranks_and_alphas():
    model = peft_model([{"r": 4, "lora_alpha": 8}, {"r": 2, "lora_alpha": 6}, {"r": 3, "lora_alpha": 3}])
    weights = [0.5, 1.5, 1.0]
    names = ["e0", "e1", "e2"]
    model.add_weighted_adapter(names, weights, "cat", combination_type="cat")
    for method in (TaskArithmetic(), Cat()):
        for name, ours in merged(method, [task_vector_from(model, n) for n in names], weights).items():
            layer = model.base_model.model.get_submodule(name)
            torch.testing.assert_close(ours, layer.get_delta_weight("cat"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"r": 4, "lora_alpha": 8},
        {"r": 4, "lora_alpha": 8, "use_rslora": True},
        {"r": 4, "lora_alpha": 8, "rank_pattern": {"1": 2}, "alpha_pattern": {"^0": 5}},
        {"r": 9, "lora_alpha": 2, "rank_pattern": {"0": 3}, "use_rslora": True},
    ],
)
def test_scale_of_each_module_is_the_one_peft_applies(options):
    model = peft_model([options])
    ours = add([task_vector_from(model, "e0")])
    for name in ours:
        expected = model.base_model.model.get_submodule(name).get_delta_weight("e0")
        torch.testing.assert_close(ours.delta(name), expected, rtol=1e-6, atol=1e-6)
