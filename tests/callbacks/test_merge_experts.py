# Reference: the model's own activations and answers, taken by hand. Run: pytest tests/callbacks/test_merge_experts.py
import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from answering.countdown import Countdown
from answering.grams import input_grams, sizes, trace_of
from answering.live_model import LiveModel, attached_name
from answering.merge_answers import MergeAnswers
from artifacts.adapter_files import (
    AdapterError,
    adapter_sha256,
    is_complete,
    read_adapter,
    write_adapter,
)
from callbacks.merge_board import places, write_board
from callbacks.merge_experts import MergeExperts
from datamodules.batch import BadExampleError
from experiment import live_model
from lightning_modules.adapters import LoRASettings
from merge.__main__ import main
from merge.auto import auto_merge
from merge.gates import gates_on_smoke
from merge.grams import StoredGrams, passes
from merge.peft_layout import task_vector_of
from tests.callbacks.conftest import SPECIALTIES, Data, Made, callback
from tests.conftest import made_example, randomise_adapter

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
    model = MergeAnswers(made)
    path = model.grams("alpha", [made.folder.run("alpha").adapter], tmp_path / "g", 3)
    first = path.read_bytes()
    bare = input_grams(made.tiny, made.data("alpha").splits["train"], list(StoredGrams(path)), "letter")
    differing = [
        n for n, G in StoredGrams(path).items() if not torch.allclose(G.double(), bare[n], rtol=1e-3, atol=1e-5)
    ]
    assert differing, "the expert must act while its inputs are collected"
    assert made.loads == 1
    again = MergeAnswers(made)
    assert again.grams("alpha", [made.folder.run("alpha").adapter], tmp_path / "g", 3).read_bytes() == first
    assert made.loads == 1, "nothing is loaded for what is there"
    again.grams("alpha", [made.folder.run("beta").adapter], tmp_path / "g", 3)
    assert path.read_bytes() != first


def test_less_memory_for_gram_matrices_means_more_passes_and_the_same_bytes(made, tmp_path, monkeypatch):
    chain, asked = [made.folder.run("alpha").adapter], []

    def counted(policy, questions, names, answer_with):
        asked.append(list(names))
        return input_grams(policy, questions, names, answer_with)

    monkeypatch.setattr("answering.grams.input_grams", counted)
    whole = MergeAnswers(made).grams("alpha", chain, tmp_path / "whole", 3).read_bytes()
    model = MergeAnswers(made)
    read = sizes(chain[0])
    modules = dict(made.tiny.family.model.named_modules())
    assert read == {name: modules[name].in_features for name in asked[0]}
    model.gram_mib = 0.1  # of 8 * 64^2 bytes each, and 8 * 96^2
    assert model.grams("alpha", chain, tmp_path / "few", 3).read_bytes() == whole
    assert asked[1:] == passes(read, 0.1)
    assert len(asked) > 4


def test_traces_take_turns_and_questions_without_one_are_read_alone():
    example = made_example(0)
    assert trace_of(example, 5, "letter") == example.trace("intuitive", "letter")
    assert trace_of(SimpleNamespace(reasoning={}), 0, "letter") == ""


def test_no_training_question_is_an_error(made, tmp_path):
    made.data = lambda _: Data({"train": []})
    with pytest.raises(BadExampleError, match="no training question"):
        MergeAnswers(made).grams("alpha", [made.folder.run("alpha").adapter], tmp_path / "g", 3)


def of_the_base(policy):
    """The base's own weights by name, whatever is attached."""
    return {name: p.clone() for name, p in policy.family.named_parameters() if ".lora_" not in name}


def test_the_base_is_as_it_was_after_adapters_were_swapped_in(made):
    model = MergeAnswers(made, max_new_tokens=6, n=0)
    before = of_the_base(made.tiny)
    first = model.examine([], "alpha", "val")
    assert len(first) == 2
    model.examine([made.folder.run("alpha").adapter], "alpha", "val")
    with pytest.raises(RuntimeError, match="midway"), model.model.acting([made.folder.run("beta").adapter]):
        raise RuntimeError("midway")
    after = of_the_base(made.tiny)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert made.tiny.active == ()
    assert not any(p.requires_grad for p in made.tiny.family.parameters())
    assert MergeAnswers(made, max_new_tokens=6, n=0).examine([], "alpha", "val") == first


def test_adapters_that_the_next_caller_shares_stay_attached_and_all_others_leave(made, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(
        "answering.live_model.read_adapter", lambda path, **how: read.append(path) or read_adapter(path, **how)
    )
    alpha, beta = (made.folder.run(s).adapter for s in SPECIALTIES)
    made.tiny.add_adapter("dsa", LoRASettings(rank=2))  # as a training in this process leaves it
    made.tiny.activate(["dsa"], trainable="dsa")
    with LiveModel(made).attached([alpha]) as policy:
        assert policy.adapters == policy.active == (attached_name(alpha),)
    assert (made.tiny.adapters, made.tiny.active) == ((attached_name(alpha),), ())
    with LiveModel(made).acting([beta, alpha]) as policy:  # whoever left alpha, it is not read again
        assert set(policy.adapters) == {attached_name(alpha), attached_name(beta)}
    assert read == [alpha, beta]
    with LiveModel(made).acting([]) as policy:
        assert policy.adapters == ()
    # the same weights under another scale are another adapter; the same files elsewhere are not
    shutil.copytree(alpha, tmp_path / "copy")
    named = {"kind": "dsa", "base_fingerprint": made.fingerprint}
    held = read_adapter(alpha, base_fingerprint=made.fingerprint)
    write_adapter(tmp_path / "scaled", held.config | {"lora_alpha": 9.0}, held.tensors, named)
    assert adapter_sha256(tmp_path / "scaled") == adapter_sha256(alpha)
    assert attached_name(tmp_path / "copy") == attached_name(alpha) != attached_name(tmp_path / "scaled")


@pytest.mark.parametrize("way", ["attached", "acting"])
def test_a_damaged_or_foreign_adapter_does_not_act(made, way):
    alpha, beta = (made.folder.run(s).adapter for s in SPECIALTIES)
    foreign = Made(made.folder, made.tiny, "another")
    model = LiveModel(made)
    with pytest.raises(AdapterError, match="trained on the base with fingerprint"):
        LiveModel(foreign).check([alpha])
    with (
        pytest.raises(AdapterError, match="trained on the base with fingerprint"),
        getattr(LiveModel(foreign), way)([alpha]),
    ):
        pytest.fail("a foreign adapter acted")
    weights = beta / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(AdapterError, match="not what the manifest recorded"):
        model.check([alpha, beta])
    with pytest.raises(AdapterError, match="not what the manifest recorded"), getattr(model, way)([alpha, beta]):
        pytest.fail("a damaged adapter acted")
    assert made.tiny.active == ()


def lora(made, folder, seed, scale):
    """A random adapter of the tiny base, B of the given size."""
    made.tiny.add_adapter("dsa", LoRASettings(rank=2, alpha=4.0))
    randomise_adapter(made.tiny, "dsa", seed=seed, scale=scale)
    config, tensors = made.tiny.adapter_state("dsa")
    made.tiny.remove_adapter("dsa")
    write_adapter(folder, config, tensors, {"kind": "merged", "base_fingerprint": made.fingerprint})
    return folder


def test_divergence_from_the_base_is_what_two_plain_passes_give(made):
    model, chain = MergeAnswers(made, max_new_tokens=6), [made.folder.run("alpha").adapter]
    other = [made.folder.run("beta").adapter]
    replies = model.replies(chain, "alpha", "val", 2)
    expected = []
    for example, reply in zip(made.data("alpha").splits["val"], replies, strict=True):
        logps = []
        for adapters in ((), other):
            with torch.no_grad(), model.model.acting(adapters) as policy:
                line = policy.line([policy.prompt(example, "")], [reply.ids])
                states = policy.hidden_states(line)[-len(reply.ids) - 1 : -1]
                logps.append(policy.family.logits(states).double().log_softmax(-1))
        expected.append((logps[1].exp() * (logps[1] - logps[0])).sum(-1).mean())
    assert model.kl(other, chain, "alpha", 2) == pytest.approx(torch.stack(expected).mean().item(), rel=1e-3)
    assert model.kl([], chain, "alpha", 2) == 0
    assert made.tiny.active == ()


def test_gates_count_their_answers_down_and_know_which_were_given_before(made, capsys, monkeypatch):
    counted = []

    def at_once(*about):
        counted.append(Countdown(*about, seconds=0.0))
        return counted[-1]

    monkeypatch.setattr("answering.merge_answers.Countdown", at_once)
    alpha, beta = (made.folder.run(s).adapter for s in SPECIALTIES)
    examination = MergeAnswers(made, max_new_tokens=2).examination({"alpha": [alpha]}, 2)
    examination.answers(beta)
    told = [line.split("  ")[:2] for line in capsys.readouterr().out.splitlines()]
    assert told == [["gates", f"{done}/6 answers"] for done in (2, 4, 6)]
    examination.answers(alpha)  # base and expert are known, and the agent is the expert
    assert [one.found for one in counted] == [0, 6]


def smoked(made, adapter, experts):
    """What the gates say of an adapter's logits and loops, its answers left aside."""
    answers = MergeAnswers(made, max_new_tokens=30).examination(experts, 6).answers(adapter)
    return gates_on_smoke({specialty: a.smoke for specialty, a in answers.items()})


def test_an_agent_whose_logits_overflow_or_that_repeats_itself_is_rejected_and_a_healthy_one_is_not(made, tmp_path):
    # The tiny random base repeats its last token; a large update keeps it from that, a tiny one does not.
    experts = {s: [lora(made, tmp_path / s, seed, 3.0)] for seed, s in enumerate(SPECIALTIES)}
    made.data = lambda _: Data({"val": [made_example(i) for i in range(6)], "test": []})
    assert [g.verdict for g in smoked(made, experts["alpha"][0], {"alpha": experts["alpha"]})] == ["accept"]
    broken = smoked(made, lora(made, tmp_path / "huge", 0, 1e30), experts)
    assert [g.text for g in broken if g.verdict == "reject" and "NaN" in g.text] == [
        f"{s}: logits of the merged agent hold NaN or infinity" for s in SPECIALTIES
    ]
    loops = smoked(made, lora(made, tmp_path / "still", 0, 1e-3), experts)
    assert [g.verdict for g in loops] == ["reject", "reject", "accept"]
    assert loops[0].text == "alpha: 1.000 of the replies end in a loop, 0.000 of the expert's (n = 6)"
    far = smoked(made, experts["beta"][0], {s: [made.folder.run(s).adapter] for s in SPECIALTIES})
    assert [g.verdict for g in far] == ["warn", "warn", "accept"]


def test_smoke_is_rejected_on_disk_and_shown_in_every_report(made, tmp_path, monkeypatch):
    monkeypatch.setattr("answering.merge_answers.reply_kl", lambda policy, prompt, ids: float("nan"))
    callback(made, methods=TIES).finish()
    folder = made.folder.merged("ties")
    assert [p.name for p in folder.iterdir() if p.name == "adapter"] == []
    for name in ("conflict.md", "README.md", "conflict.json"):
        assert "alpha: logits of the base or the expert hold NaN" in (folder / "rejected" / name).read_text()
    manifest = read_adapter(folder / "rejected/adapter", base_fingerprint=made.fingerprint).manifest
    assert manifest["extra"]["gates"] == "reject"
    monkeypatch.undo()
    callback(made, methods={"healthy": TIES["ties"]}).finish()
    assert "- accept: KL to the base, nats a token: alpha" in (made.folder.merged("healthy") / "README.md").read_text()


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
    merge.finish()
    assert not (made.folder.path / "merged").exists()
    (made.folder.path / "aside").rename(made.folder.run("beta").adapter / "manifest.json")
    merge.finish()
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
        ({"gram_mib": 0}, "gram_mib"),
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
        "note",
        "note",
    ]  # below 0.9 of each expert


def test_a_winner_that_falls_below_the_base_on_the_other_split_is_no_result(made, tmp_path):
    bad = {"val": 9, "test": 0}
    scores = {"base": (8, 1), "expert": (10, 8), "mean": (bad, 9), "swudi": (1, 1)}
    summary, found = search(made, tmp_path, scores)
    assert (summary, found["winner"], found["accepted"]) == (None, "mean", False)
    assert not (made.folder.merged("auto") / "adapter").exists()


def test_a_candidate_that_the_gates_reject_is_listed_and_never_wins(made, tmp_path):
    reverse = {"lost": {"class_path": "merge.methods.task_arithmetic.TaskArithmetic", "init_args": {"lambda_": 30.0}}}
    FEW.update(reverse)
    try:
        scores = {"base": (1, 1), "expert": (10, 8), "mean": (2, 2), "lost": (10, 8), "rejected": (10, 8)}
        _, found = search(made, tmp_path, scores, candidates=("mean", "lost"))
    finally:
        FEW.pop("lost")
    assert [(c["name"], c["gates"]) for c in found["candidates"]] == [("lost", "reject"), ("mean", "accept")]
    assert found["winner"] == "mean"


def test_the_command_line_asks_the_live_model(made, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(live_model, "merge_answers", lambda config, overrides, **options: MergeAnswers(made, **options))
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
    assert "- accept: KL to the base, nats a token: alpha" in capsys.readouterr().out
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
    callback(made, methods=TIES, pictures=True).finish()
    folder = made.folder.merged("ties")
    report = json.loads((folder / "conflict.json").read_text())
    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    for name in report["names"]:
        assert events.Scalars(f"weights/retention/{name}")[0].value == pytest.approx(
            report["experts"][name]["retention"]
        )
        assert events.Scalars(f"weights/survival/{name}")[0].value == pytest.approx(0.5, abs=0.01)
    per_expert = {f"weights/modules/{key}" for key in ("norm", "retention", "interference", "survival")}
    figures = {"weights/experts", "weights/layers", "weights/modules/conflict"}
    assert figures | per_expert == set(events.Tags()["images"])
    picture = Image.open(io.BytesIO(events.Images("weights/modules/conflict")[0].encoded_image_string))
    assert len(picture.convert("RGB").getcolors(2**20)) > 10
    (before,) = folder.glob("events.out.tfevents.*")
    write_board(folder, report)
    assert list(folder.glob("events.out.tfevents.*")) == [before]
    callback(made, methods=TIES, pictures=False).finish()
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    bare = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload().Tags()
    assert (bare["images"], bare["scalars"], bare["tensors"]) == (
        [],
        events.Tags()["scalars"],
        events.Tags()["tensors"],
    )


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
    with LiveModel(made).acting([merged]) as policy:
        layers = dict(policy.family.model.named_modules())
        for name in vector:
            added = layers[name].base_layer.weight - weights[name]
            torch.testing.assert_close(added, vector.delta(name), rtol=1e-3, atol=1e-5)
