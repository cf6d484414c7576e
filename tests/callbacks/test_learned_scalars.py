# Reference: adapters that PEFT's layers add, one question at a time, and differences of that KL.
# Run: pytest tests/callbacks/test_learned_scalars.py
import json
from dataclasses import replace

import pytest
import torch
import yaml

from answering.merge_answers import MergeAnswers
from answering.scalars import Case, Mixture, learn, taught
from artifacts.adapter_files import adapter_sha256, read_adapter
from datamodules.batch import BadExampleError
from experiment import live_model
from merge.__main__ import main
from merge.factors import Factors
from merge.methods.learned import LearnedScalars, group_of
from merge.peft_layout import merged_config, task_vector_of, tensor_name
from tests.callbacks.conftest import SPECIALTIES, Data, callback
from tests.conftest import made_example

METHOD = {"learned": {"class_path": "merge.methods.learned.LearnedScalars", "init_args": {"steps": 2}}}


def vectors_of(made):
    chains = {s: made.folder.run(s).adapter for s in SPECIALTIES}
    read = {s: task_vector_of(read_adapter(path, base_fingerprint=made.fingerprint)) for s, path in chains.items()}
    return {s: 4.0 * vector for s, vector in read.items()}  # so that they tell


def cases_of(policy, first, lengths):
    ids = torch.randint(70, 200, (sum(lengths),), generator=torch.Generator().manual_seed(first)).tolist()
    return [
        Case(policy.prompt(made_example(first + i, words=i), ""), tuple(ids[i : i + length]))
        for i, length in enumerate(lengths)
    ]


def reference_kl(policy, vectors, scalars, per, case, expert):
    """As `Mixture.kl` of one case, through adapters that are attached the usual way."""
    groups = sorted({group_of(module, per) for module in vectors[expert]})

    def attach(name, weigh):
        modules = {}
        for module in vectors[expert]:
            own = [
                (vector[module], weigh(i, groups.index(group_of(module, per))))
                for i, vector in enumerate(vectors.values())
            ]
            modules[module] = Factors(torch.cat([f.A for f, _ in own]), torch.cat([f.B * w for f, w in own], dim=1))
        tensors = {tensor_name(m, side): getattr(f, side) for m, f in modules.items() for side in "AB"}
        policy.load_adapter(name, merged_config({m: f.rank for m, f in modules.items()}, {"task_type": None}), tensors)
        policy.activate([name])
        with torch.no_grad():
            states = policy.hidden_states(policy.line([case.prompt], [case.ids[:-1]]))[-len(case.ids) :]
            logps = policy.family.logits(states).double().log_softmax(-1)
        policy.remove_adapter(name)
        return logps

    own = attach("agent", lambda i, g: scalars[i][g].item())
    target = attach("teacher", lambda i, g: float(list(vectors)[i] == expert))
    return (own.exp() * (own - target)).sum(-1).mean().item()


@pytest.mark.parametrize("per", ["expert", "layer", "module"])
def test_the_kl_and_its_slope_are_those_of_attached_adapters(made, per, monkeypatch):
    monkeypatch.setattr("answering.scalars.CHUNK", 500)  # some tokens at a time
    vectors = vectors_of(made)
    mixture = Mixture(made.tiny, vectors, per)
    cases = cases_of(made.tiny, 3, (5, 1, 7))
    generator = torch.Generator().manual_seed(4)
    scalars = (torch.rand(mixture.scalars.shape, generator=generator) + 0.1).requires_grad_()
    with mixture.beside():
        found = mixture.kl(cases, 1, scalars, weight=0.5)

    def slow(at):
        return sum(reference_kl(made.tiny, vectors, at, per, case, "beta") for case in cases) / len(cases)

    assert found == pytest.approx(slow(scalars.detach()), rel=1e-3)
    assert found > 1e-3
    direction = torch.randn(scalars.shape, generator=generator)
    step = 1e-2 * direction
    difference = (slow(scalars.detach() + step) - slow(scalars.detach() - step)) / 2
    assert 0.5 * difference == pytest.approx((scalars.grad * step).sum().item(), rel=2e-2)
    with mixture.beside():
        assert mixture.kl(cases, 1, mixture.expert(1)) == pytest.approx(0, abs=1e-6)
        assert mixture.kl(cases, 1, scalars.detach()) == pytest.approx(found, rel=1e-5)
    assert not made.tiny.family.model.training
    plain = made.tiny.hidden_states(made.tiny.line([cases[0].prompt], [[]]))
    made.tiny.bare()
    assert torch.equal(plain, made.tiny.hidden_states(made.tiny.line([cases[0].prompt], [[]])))  # nothing stays hooked


def test_an_expert_alone_is_found_back(made):
    vectors = {"beta": vectors_of(made)["beta"]}
    config = LearnedScalars.Config(per="expert", start=0.5, steps=40, rate=0.05)
    scalars, kl = learn(Mixture(made.tiny, vectors, "expert"), {"beta": cases_of(made.tiny, 0, (6, 6, 6))}, config)
    assert scalars.item() == pytest.approx(1, abs=0.1)
    before, after = kl["beta"]
    assert after < 0.05 * before


def test_every_setting_of_the_descent_counts(made):
    vectors = vectors_of(made)
    cases = {s: cases_of(made.tiny, 10 * i, (4, 5, 6, 3, 5)) for i, s in enumerate(SPECIALTIES)}

    def scalars(**options):
        config = LearnedScalars.Config(**{"per": "layer", "steps": 2, "questions_per_step": 2} | options)
        return learn(Mixture(made.tiny, vectors, config.per), cases, config)[0]

    first = scalars()
    assert torch.equal(first, scalars())
    assert torch.equal(first, scalars(start=0.5))  # 1 / K
    # two steps of Adam, the second at half the rate: at most 1.5 rates from the start
    assert 0 < (first - 0.5).abs().max() <= 0.05 * 1.5 + 1e-6
    for options in ({"start": 0.4}, {"steps": 3}, {"rate": 0.02}, {"questions_per_step": 3}):
        assert not torch.allclose(first, scalars(**options), atol=1e-5), options
    assert scalars(per="expert").shape == (2, 1)
    assert scalars(per="module").shape == (2, len(vectors["alpha"]))


def test_the_callback_learns_once_and_its_recipe_needs_no_model(made, tmp_path, capsys, monkeypatch):
    callback(made, methods=METHOD, gram_rows=3, gate_n=0).finish()
    out = capsys.readouterr().out
    assert "learned scalars: KL to the own expert, nats a token, from the start: alpha " in out
    merged = made.folder.merged("learned")
    recipe = yaml.safe_load((merged / "recipe.yaml").read_text())
    assert set(recipe["sources"]) == set(SPECIALTIES)
    file = made.folder.path / "merged/.scalars/learned.json"
    assert recipe["method"]["init_args"]["scalars"] == json.loads(file.read_text())["scalars"]
    loads = made.loads
    callback(made, methods=METHOD, gram_rows=3, gate_n=0).finish()
    assert (made.loads, capsys.readouterr().out) == (loads, "")
    assert main(["verify", "--config", str(merged / "recipe.yaml")]) == 0

    # the command line's own recipe, on the same questions, gives the same agent
    monkeypatch.setattr(live_model, "merge_answers", lambda config, overrides, **options: MergeAnswers(made, **options))
    live = {"config": "made.yaml", "rows": 3, "gate_n": 0, "max_new_tokens": 6}
    sources = {s: str(made.folder.run(s).adapter) for s in SPECIALTIES}
    own = {"sources": sources, "method": METHOD["learned"], "out": str(tmp_path / "own"), "live": live}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(own))
    assert main(["run", "--config", str(tmp_path / "recipe.yaml")]) in (0, 3)
    found = next((tmp_path / "own").rglob("adapter"))
    assert adapter_sha256(found) == adapter_sha256(next(merged.rglob("adapter")))


def test_scalars_are_learned_anew_where_anything_changes_and_a_kill_leaves_no_half(made, tmp_path, monkeypatch):
    model = MergeAnswers(made, max_new_tokens=6)
    experts = {s: [made.folder.run(s).adapter] for s in SPECIALTIES}
    method = LearnedScalars(LearnedScalars.Config(steps=1))
    file = tmp_path / "scalars.json"

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(torch.optim.Adam, "step", killed)
        with pytest.raises(KeyboardInterrupt):
            model.taught(method, experts, file, 3)
    assert not file.exists()
    told = []
    first = model.taught(method, experts, file, 3).config.scalars
    for change in ({"rows": 2}, {"steps": 2}):
        other = LearnedScalars(replace(method.config, steps=change.get("steps", 1)))
        assert model.taught(other, experts, file, change.get("rows", 3)).config.scalars != first
    found = json.loads(file.read_text())
    taught(other, experts, file, {k: v for k, v in found["made_from"].items() if k != "method"}, killed, told.append)
    assert not told
    made.data = lambda specialty: Data({"train": []})
    with pytest.raises(BadExampleError, match="no training question to learn from its expert on"):
        model.taught(method, experts, file, 3)
