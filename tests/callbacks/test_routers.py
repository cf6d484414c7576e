# Reference: least squares in the space of the features, and the base asked one question at a time.
# Run: pytest tests/callbacks/test_routers.py
from dataclasses import replace

import pytest
import torch

from answering.routing import Router
from callbacks.evaluate_experts import EvaluateExperts
from callbacks.routers import oracle, routed
from evaluation.predictions import Prediction
from evaluation.routes import SENT_TO, expert_rows, route_rows
from evaluation.variants import Variant
from lightning_modules.functional.probe import linear_probe
from lightning_modules.question_states import question_states
from tests.conftest import made_example


@pytest.mark.parametrize("shape", [(30, 5), (12, 40)])
@pytest.mark.parametrize("ridge", [1e-3, 1.0])
def test_the_probe_is_ridge_regression_in_the_space_of_the_features(shape, ridge):
    generator = torch.Generator().manual_seed(1)
    X, classes = torch.randn(shape, generator=generator) + 2, torch.arange(shape[0]) % 3
    W, b = linear_probe(X, classes, ridge)
    Y = torch.eye(3, dtype=torch.float64)[classes]
    Z = X.double() - X.double().mean(0)
    expected = torch.linalg.inv(Z.T @ Z + ridge * Z.square().sum() / len(Z) * torch.eye(shape[1])) @ Z.T @ Y
    torch.testing.assert_close(W, expected, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(X.double() @ W + b, Z @ W + Y.mean(0), rtol=1e-8, atol=1e-10)  # the centre is taken in


def test_the_probe_finds_classes_that_a_line_parts_and_bears_rows_that_are_all_the_same():
    X = torch.tensor([[0.0, 5.0], [1.0, 5.0], [4.0, 5.0], [5.0, 5.0]])
    W, b = linear_probe(X, torch.tensor([0, 0, 1, 1]))
    assert (X.double() @ W + b).argmax(1).tolist() == [0, 0, 1, 1]
    W, b = linear_probe(torch.ones(3, 2), torch.tensor([0, 1, 1]))
    assert (torch.ones(1, 2).double() @ W + b).argmax().item() == 1  # the larger class


def test_features_are_those_of_each_question_alone_before_any_instruction(tiny_policy, mixed_examples):
    questions = [*mixed_examples, replace(mixed_examples[0], question_id="again")]  # the same picture and words
    found = question_states(tiny_policy, questions)
    for example, row in zip(questions, found, strict=True):
        short, long = tiny_policy.prompts(example, ["", "Reason by exclusion."])
        assert 0 < short.shared == long.shared
        for prompt in (replace(short, shared=0), replace(long, shared=0)):
            with torch.no_grad():
                states = tiny_policy.hidden_states(tiny_policy.line([prompt], [[]]))
            torch.testing.assert_close(row, states[: short.shared].double().mean(0), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found[0], found[1], atol=1e-2)
    assert torch.equal(found[-1], found[0])
    assert torch.equal(question_states(tiny_policy, questions[2:3])[0], found[2])  # whoever is asked beside it


def test_a_router_tells_questions_apart_that_differ_in_words(tiny_policy):
    def asked(first, words):
        return [made_example(first + i, words=words) for i in range(6)]

    router = Router.fitted(tiny_policy, {"b": asked(0, 9), "a": asked(10, 0)})
    assert router.choose(tiny_policy, [*asked(20, 0), *asked(30, 9)]) == ["a"] * 6 + ["b"] * 6
    assert router.choose(tiny_policy, []) == []


def answered(model, specialty, number, completion):
    names = (model, specialty, f"{specialty}{number}", f"p{number // 2}", "neutral")
    return Prediction(*names, ("x", "y"), "A", completion, {"kind": "k"})


def test_a_routers_answers_are_those_of_the_experts_that_it_names():
    variant, columns = Variant(), ("a", "b")
    group = expert_rows(["base", "x/a", "x/b", "y/a", "x/merged/a"], columns)
    assert group == {"x": {"a": "x/a", "b": "x/b"}}  # y has no expert of b
    blocks = {
        (variant, row, column): [answered(row, column, i, f"{row} on {column}{i}") for i in range(4)]
        for row in ("x/a", "x/b")
        for column in columns
    }
    route = {"a0": "a", "a1": "b", "a2": "a", "a3": "a", "b0": "a", "b1": "b", "b2": "b", "b3": "a"}
    rows = routed(group, {"oracle": oracle, "learned": lambda s, v, q: route[q]}, blocks, [variant])
    by_model = {name: [item for item in rows if item.model == f"x/router/{name}"] for name in ("oracle", "learned")}
    assert [item.completion for item in by_model["oracle"]] == [f"x/{s} on {s}{i}" for s in columns for i in range(4)]
    assert [item.completion for item in by_model["learned"]] == [f"x/{e} on {q}" for q, e in route.items()]
    assert all(item.tags == {"kind": "k", SENT_TO: route[item.question_id]} for item in by_model["learned"])
    columned = {s: [item for item in by_model["learned"] if item.specialty == s] for s in columns}
    found = route_rows({"x/router/learned": columned, "x/a": {"a": blocks[variant, "x/a", "a"]}})
    assert [(m, s, n, share[0], astray) for m, s, n, share, astray in found] == [
        ("x/router/learned", "a", 4, 0.75, "b 1"),
        ("x/router/learned", "b", 4, 0.5, "a 2"),
    ]


def test_routers_are_named_once():
    with pytest.raises(ValueError, match="routers must name none twice"):
        EvaluateExperts.Config(routers=("oracle", "oracle"))
