# Reference: the model's own activations and answers, taken by hand. Run: pytest tests/callbacks/test_merge_experts.py
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks.merge_board import places, write_board
from callbacks.merge_experts import MergeExperts
from callbacks.merge_model import MergeModel, input_grams, trace_of
from datamodules.batch import BadExampleError
from experiment import live_model
from experiment.folders import ExperimentFolder
from lightning_modules.policy import LoRASettings
from merge.__main__ import main
from merge.adapter_files import adapter_sha256, base_fingerprint, is_complete, read_adapter, write_adapter
from merge.auto import auto_merge
from merge.grams import StoredGrams
from merge.peft_layout import task_vector_of
from tests.conftest import made_example, randomise_adapter

SPECIALTIES = ("alpha", "beta")


@dataclass
class Data:
    """What the merge asks of a DataModule."""

    splits: dict
    config: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(answer_with="letter"))


@dataclass
class Made:
    """What the merge asks of an experiment: two experts on a tiny random base."""

    folder: ExperimentFolder
    tiny: object
    fingerprint: str
    loads: int = 0

    specialties = SPECIALTIES
    experiment = SimpleNamespace(name="made", trainer={"accelerator": "cpu"})

    def is_complete(self):
        return all(is_complete(self.folder.run(s).adapter) for s in SPECIALTIES)

    def expert_chain(self, specialty):
        return [("dsa", self.folder.run(specialty).adapter)]

    def data(self, specialty):
        first = 10 * SPECIALTIES.index(specialty)
        examples = [made_example(first + i, words=i % 3) for i in range(6)]
        return Data({"train": examples[:3], "val": examples[3:5], "test": examples[5:]})

    def policy(self):
        self.loads += 1
        return self.tiny, self.fingerprint


@pytest.fixture
def made(tiny_policy, tmp_path):
    fingerprint = base_fingerprint(tiny_policy.family.named_parameters())
    experiment = Made(ExperimentFolder(tmp_path / "made"), tiny_policy, fingerprint)
    for seed, specialty in enumerate(SPECIALTIES):
        tiny_policy.add_adapter("dsa", LoRASettings(rank=2 + seed, alpha=4.0))
        randomise_adapter(tiny_policy, "dsa", seed=seed)
        config, tensors = tiny_policy.adapter_state("dsa")
        tiny_policy.remove_adapter("dsa")
        manifest = {"kind": "dsa", "base_fingerprint": fingerprint, "specialty": specialty}
        write_adapter(experiment.folder.run(specialty).adapter, config, tensors, manifest)
    return experiment


def callback(made, **options):
    return MergeExperts(MergeExperts.Config(max_new_tokens=6, auto_n=2, **options), experiment=made)


TIES = {"ties": {"class_path": "merge.methods.ties.Ties", "init_args": {"density": 0.5}}}
FEW = {
    "mean": {"class_path": "merge.methods.mean.Mean"},
    "swudi": {"class_path": "merge.methods.swudi.Swudi", "init_args": {"time": 10.0}},
    "regmean": {"class_path": "merge.methods.regmean.RegMean"},
}


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_gram_matrices_are_those_of_what_the_modules_read_row_by_row(tiny_policy):
    examples = [made_example(0), made_example(1, words=4), made_example(2, sizes=((112, 112), (80, 160)))]
    modules = dict(tiny_policy.family.model.named_modules())
    names = [n for n in modules if n.endswith(("down_proj", "q_proj")) and "visual" not in n]
    found = input_grams(tiny_policy, examples, names, "letter")
    seen = {name: [] for name in names}

    def note(name):
        return lambda _, inputs: seen[name].append(inputs[0].flatten(0, -2).double())

    hooks = [modules[name].register_forward_pre_hook(note(name)) for name in names]
    with torch.no_grad():
        for example in examples:
            trace = tiny_policy.completion_ids(example.trace("intuitive", "letter"))[:-1]
            tiny_policy.hidden_states(tiny_policy.line([tiny_policy.prompt(example, "")], [trace]))
    for hook in hooks:
        hook.remove()
    assert names
    for name in names:
        x = torch.cat(seen[name])
        torch.testing.assert_close(found[name], x.T @ x / len(x), rtol=1e-4, atol=1e-5)


def test_gram_matrices_are_taken_under_the_expert_kept_and_made_anew_when_it_changes(made, tmp_path):
    model = MergeModel(made)
    path = model.grams("alpha", [made.folder.run("alpha").adapter], tmp_path / "g", 3)
    first = path.read_bytes()
    bare = input_grams(made.tiny, made.data("alpha").splits["train"], list(StoredGrams(path)), "letter")
    differing = [
        n for n, G in StoredGrams(path).items() if not torch.allclose(G.double(), bare[n], rtol=1e-3, atol=1e-5)
    ]
    assert differing, "the expert must act while its inputs are collected"
    assert made.loads == 1
    again = MergeModel(made)
    assert again.grams("alpha", [made.folder.run("alpha").adapter], tmp_path / "g", 3).read_bytes() == first
    assert made.loads == 1, "nothing is loaded for what is there"
    again.grams("alpha", [made.folder.run("beta").adapter], tmp_path / "g", 3)
    assert path.read_bytes() != first


def test_traces_take_turns_and_questions_without_one_are_read_alone():
    example = made_example(0)
    assert trace_of(example, 5, "letter") == example.trace("intuitive", "letter")
    assert trace_of(SimpleNamespace(reasoning={}), 0, "letter") == ""


def test_no_training_question_is_an_error(made, tmp_path):
    made.data = lambda _: Data({"train": []})
    with pytest.raises(BadExampleError, match="no training question"):
        MergeModel(made).grams("alpha", [made.folder.run("alpha").adapter], tmp_path / "g", 3)


def test_the_base_is_as_it_was_after_adapters_were_swapped_in(made):
    model = MergeModel(made, max_new_tokens=6, n=0)
    before = [p.clone() for p in made.tiny.family.parameters()]
    first = model.examine([], "alpha", "val")
    assert len(first) == 2
    model.examine([made.folder.run("alpha").adapter], "alpha", "val")
    with pytest.raises(RuntimeError, match="midway"), model.acting([made.folder.run("beta").adapter]):
        raise RuntimeError("midway")
    assert all(torch.equal(a, b) for a, b in zip(before, made.tiny.family.parameters(), strict=True))
    assert made.tiny.active == ()
    assert MergeModel(made, max_new_tokens=6, n=0).examine([], "alpha", "val") == first


def test_the_callback_merges_reports_and_repeats_nothing(made, capsys):
    callback(made, methods=TIES, presets=("default", "regmean")).finish()
    merged = made.folder.path / "merged"
    assert sorted(p.name for p in merged.iterdir() if not p.name.startswith(".")) == ["default", "regmean", "ties"]
    out = capsys.readouterr().out
    assert "merged 2 task vectors by regmean" in out
    for name in ("default", "regmean", "ties"):
        manifest = read_adapter(merged / name / "adapter", base_fingerprint=made.fingerprint).manifest
        assert (manifest["kind"], manifest["experiment"]) == ("merged", "made")
    before, loads = contents(merged), made.loads
    callback(made, methods=TIES, presets=("default", "regmean")).finish()
    assert contents(merged) == before
    assert made.loads == loads
    assert capsys.readouterr().out == ""


def test_it_waits_for_the_last_expert(made):
    (made.folder.run("beta").adapter / "manifest.json").rename(made.folder.path / "aside")
    merge = callback(made, methods=TIES)
    merge.on_fit_end(None, None)
    assert not (made.folder.path / "merged").exists()
    (made.folder.path / "aside").rename(made.folder.run("beta").adapter / "manifest.json")
    merge.on_fit_end(None, None)
    assert is_complete(made.folder.merged("ties") / "adapter")


def test_stages_are_sources_of_their_own_or_summed(made):
    made.expert_chain = lambda s: [("dsa", Path(f"/{s}/dsa")), ("gba", Path(f"/{s}/gba"))]
    assert list(callback(made).sources(experts=False)) == ["dsa.alpha", "gba.alpha", "dsa.beta", "gba.beta"]
    assert callback(made).sources(experts=True)["beta"] == [Path("/beta/dsa"), Path("/beta/gba")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sources": "all"}, "sources"),
        ({"gate": "off"}, "gate"),
        ({"gram_rows": 0}, "gram_rows"),
        ({"methods": TIES, "presets": ("ties",)}, "two merges are called 'ties'"),
        ({"methods": {"auto": {}}}, "two merges are called 'auto'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MergeExperts.Config(**options)


# -- auto ------------------------------------------------------------------------------------------------------------


def test_auto_examines_all_candidates_and_writes_the_winner(made, capsys):
    callback(made, auto=True, auto_candidates=FEW).finish()
    auto = made.folder.merged("auto")
    found = json.loads((auto / "auto.json").read_text())
    assert {c["name"] for c in found["candidates"]} == set(FEW)
    assert found["n"] == {"alpha": 2, "beta": 2}
    assert set(found["confirmation"]["specialties"]) == set(SPECIALTIES)
    winner = auto / "candidates" / found["winner"] / "adapter"
    assert adapter_sha256(auto / "adapter") == adapter_sha256(winner)
    assert f"Winner: **{found['winner']}**" in (auto / "auto.md").read_text()
    before, loads = contents(auto), made.loads
    callback(made, auto=True, auto_candidates=FEW).finish()
    assert contents(auto) == before
    assert made.loads == loads, "what was examined is not examined again"


def examiner(made, tmp_path, scores):
    """A stand-in for the live model: `scores[name][specialty]` of ten answers are right, on either split."""

    def examine(adapters, specialty, split):
        if not adapters:
            name = "base"
        else:
            name = "expert" if "merged" not in str(adapters[0]) else Path(adapters[0]).parent.name
        right = scores[name][SPECIALTIES.index(specialty)]
        right = right[split] if isinstance(right, dict) else right
        return [i < right for i in range(10)]

    return examine


def search(made, tmp_path, scores, candidates=("mean", "swudi")):
    merge = callback(made)
    from merge.methods.mean import Mean
    from merge.recipe import Recipe, Source

    chains = {s: [Source(p) for p in chain] for s, chain in merge.sources(experts=True).items()}
    recipe = Recipe(chains, Mean(), made.folder.merged("auto"))
    summary = auto_merge(
        recipe,
        merge.sources(experts=True),
        examiner(made, tmp_path, scores),
        protocol={},
        candidates={name: FEW[name] for name in candidates},
        say=lambda _: None,
    )
    return summary, json.loads((made.folder.merged("auto") / "auto.json").read_text())


def test_the_worst_specialty_decides_not_the_mean(made, tmp_path):
    # swudi: 10 and 4 of experts' 10 and 8: worst 0.5, mean 0.75; mean: 6 and 6: worst 0.6, mean 0.675
    scores = {"base": (1, 1), "expert": (10, 8), "mean": (6, 6), "swudi": (10, 4)}
    summary, found = search(made, tmp_path, scores)
    assert [(c["name"], c["worst"]) for c in found["candidates"]] == [("mean", 0.6), ("swudi", 0.5)]
    assert (found["winner"], found["accepted"]) == ("mean", True)
    assert summary.sha256 == adapter_sha256(made.folder.merged("auto") / "adapter")
    assert [g["verdict"] for g in found["confirmation"]["gates"]["gates"]] == [
        "warn",
        "warn",
    ]  # below 0.9 of each expert


def test_a_winner_that_falls_below_the_base_on_the_other_split_is_no_result(made, tmp_path):
    bad = {"val": 9, "test": 0}
    scores = {"base": (8, 1), "expert": (10, 8), "mean": (bad, 9), "swudi": (1, 1)}
    summary, found = search(made, tmp_path, scores)
    assert (summary, found["winner"], found["accepted"]) == (None, "mean", False)
    assert not (made.folder.merged("auto") / "adapter").exists()


def test_a_candidate_that_the_gates_reject_is_listed_and_never_wins(made, tmp_path):
    reverse = {"lost": {"class_path": "merge.methods.task_arithmetic.TaskArithmetic", "init_args": {"lambda_": -1.0}}}
    FEW.update(reverse)
    try:
        scores = {"base": (1, 1), "expert": (10, 8), "mean": (2, 2), "lost": (10, 8), "rejected": (10, 8)}
        _, found = search(made, tmp_path, scores, candidates=("mean", "lost"))
    finally:
        FEW.pop("lost")
    assert [(c["name"], c["gates"]) for c in found["candidates"]] == [("lost", "reject"), ("mean", "accept")]
    assert found["winner"] == "mean"


def test_the_command_line_asks_the_live_model(made, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(live_model, "live_model", lambda config, overrides, **options: MergeModel(made, **options))
    monkeypatch.setattr("merge.auto.CANDIDATES", FEW)
    recipe = {
        "sources": {s: str(made.folder.run(s).adapter) for s in SPECIALTIES},
        "method": "regmean",
        "out": str(tmp_path / "regmean"),
        "live": {"config": "made.yaml", "rows": 3, "n": 2, "max_new_tokens": 6},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["run", "--config", str(tmp_path / "recipe.yaml")]) == 0
    callback(made, presets=("regmean",), gram_rows=3).finish()
    assert adapter_sha256(tmp_path / "regmean/adapter") == adapter_sha256(made.folder.merged("regmean") / "adapter")
    capsys.readouterr()
    code = main(["auto", "--config", str(tmp_path / "recipe.yaml")])
    found = json.loads((tmp_path / "regmean/auto.json").read_text())
    assert code == (0 if found["accepted"] else 3)
    assert {c["name"] for c in found["candidates"]} == set(FEW)
    assert "# Candidates" in capsys.readouterr().out
    named = recipe | {"sources": {f"dsa.{s}": path for s, path in recipe["sources"].items()}, "method": "mean"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(named))
    for command in ("run", "auto"):
        assert main([command, "--config", str(tmp_path / "recipe.yaml")]) == 2
        assert "'dsa.alpha' is no specialty of the live model (alpha, beta)" in capsys.readouterr().err
    named["live"] = recipe["live"] | {"gate_n": 0}  # nobody is asked, so any name will do
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(named | {"out": str(tmp_path / "mean")}))
    assert main(["run", "--config", str(tmp_path / "recipe.yaml")]) == 0
    del recipe["live"]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["auto", "--config", str(tmp_path / "recipe.yaml")]) == 2
    assert "needs a model to ask" in capsys.readouterr().err


# -- the board ---------------------------------------------------------------------------------------------------------


def test_a_merge_is_on_the_board(made):
    callback(made, methods=TIES).finish()
    folder = made.folder.merged("ties")
    report = json.loads((folder / "conflict.json").read_text())
    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    for name in report["names"]:
        assert events.Scalars(f"merge/retention/{name}")[0].value == pytest.approx(report["experts"][name]["retention"])
        assert events.Scalars(f"merge/survival/{name}")[0].value == pytest.approx(0.5, abs=0.01)
    figures = {"merge/cosine", "merge/overlap_inputs", "merge/overlap_outputs", "merge/modules/mass_conflict"}
    per_expert = {f"merge/modules/{key}/dsa.alpha" for key in ("norm", "retention", "interference", "survival")}
    assert figures | per_expert | {"merge/layers/retention", "merge/layers/norm"} <= set(events.Tags()["images"])
    picture = Image.open(io.BytesIO(events.Images("merge/modules/mass_conflict")[0].encoded_image_string))
    assert len(picture.convert("RGB").getcolors(2**20)) > 10
    write_board(folder, report)
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1


def test_modules_are_laid_out_by_layer_and_projection():
    modules = ["model.layers.10.mlp.up_proj", "model.layers.2.self_attn.q_proj", "model.layers.2.mlp.up_proj"]
    layers, projections = places(modules)
    assert list(layers) == ["2", "10"]
    assert projections == ["mlp.up_proj", "self_attn.q_proj"]
    assert layers["2"] == {"self_attn.q_proj": modules[1], "mlp.up_proj": modules[2]}
    layers, projections = places(["a.layers.0.x", "b.layers.0.x", "head"])
    assert list(layers) == ["other", "a.layers.0", "b.layers.0"]


def test_the_merged_update_is_what_the_live_model_adds(made):
    callback(made, methods=TIES).finish()
    merged = made.folder.merged("ties") / "adapter"
    vector = task_vector_of(read_adapter(merged, base_fingerprint=made.fingerprint))
    weights = {n: m.weight.clone() for n, m in made.tiny.family.model.named_modules() if n in set(vector)}
    with MergeModel(made).acting([merged]) as policy:
        layers = dict(policy.family.model.named_modules())
        for name in vector:
            added = layers[name].base_layer.weight - weights[name]
            torch.testing.assert_close(added, vector.delta(name), rtol=1e-3, atol=1e-5)
