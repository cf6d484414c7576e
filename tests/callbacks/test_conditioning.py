# Reference: adapters that PEFT's layers add, and dense matrices. Run: pytest tests/callbacks/test_conditioning.py
import pytest
import torch

from answering.conditioning import Conditioning, distilled, norm, squared_distance
from answering.merge_answers import MergeAnswers
from artifacts.adapter_files import adapter_sha256, read_adapter, read_manifest, write_adapter
from merge.factors import Factors
from merge.peft_layout import merged_config, task_vector_of, tensor_name
from tests.callbacks.conftest import SPECIALTIES, callback
from tests.callbacks.test_learned_scalars import cases_of, vectors_of


def test_the_squared_distance_is_that_of_dense_updates():
    generator = torch.Generator().manual_seed(0)
    A, B, A0, B0 = (torch.randn(s, generator=generator) for s in ((2, 9), (7, 2), (3, 9), (7, 3)))
    A.requires_grad_()
    found = squared_distance(A, B, Factors(A0, B0))
    expected = (B @ A - B0 @ A0).double().square().sum()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    (slope,) = torch.autograd.grad(found, A)
    torch.testing.assert_close(slope, torch.autograd.grad(expected, A)[0], rtol=1e-4, atol=1e-4)


def kl_of(policy, student, expert, cases, sharpen):
    """As `distilled` measures it, through adapters that are attached the usual way."""

    def logits(vector, case):
        tensors = {tensor_name(m, side): getattr(vector[m], side) for m in vector for side in "AB"}
        policy.load_adapter("agent", merged_config({m: vector[m].rank for m in vector}, {"task_type": None}), tensors)
        policy.activate(["agent"])
        with torch.no_grad():
            states = policy.hidden_states(policy.line([case.prompt], [case.ids[:-1]]))[-len(case.ids) :]
            found = policy.family.logits(states).double()
        policy.remove_adapter("agent")
        return found

    total = 0.0
    for case in cases:
        p, q = logits(student, case).log_softmax(-1), (sharpen * logits(expert, case)).log_softmax(-1)
        total += (p.exp() * (p - q)).sum(-1).mean().item()
    return total / len(cases)


# logits of a random model lie close together, and a small update hardly draws them apart
@pytest.mark.parametrize(("sharpen", "scale", "left"), [(1.0, 0.4, 0.5), (1.5, 0.4, 0.9)])
def test_an_expert_is_distilled_into_a_scaled_copy(made, sharpen, scale, left):
    expert, cases = vectors_of(made)["alpha"], cases_of(made.tiny, 0, (5, 6, 4))
    settings = Conditioning(sharpen=sharpen, anchor=0.0, steps=20, rate=4e-3)
    student, (before, after) = distilled(made.tiny, expert, scale, cases, settings)
    assert before == pytest.approx(kl_of(made.tiny, scale * expert, expert, cases, sharpen), rel=1e-3)
    assert after == pytest.approx(kl_of(made.tiny, student, expert, cases, sharpen), rel=1e-3)
    assert after < left * before


def test_the_anchor_holds_the_copy_and_every_setting_counts(made):
    expert, cases = vectors_of(made)["beta"], cases_of(made.tiny, 5, (5, 6, 4))

    def of(**options):
        settings = Conditioning(**{"steps": 3, "rate": 0.01, "questions_per_step": 2} | options)
        return distilled(made.tiny, expert, 0.5, cases, settings)[0]

    def away(student):
        return sum((student[m].B @ student[m].A - 0.5 * expert.delta(m)).square().sum() for m in student) ** 0.5

    first = of()
    assert all(
        torch.equal(a.A, b.A) and torch.equal(a.B, b.B) for a, b in zip(first.values(), of().values(), strict=True)
    )
    for options in ({"sharpen": 1.0}, {"anchor": 5.0}, {"steps": 4}, {"rate": 0.02}, {"questions_per_step": 3}):
        other = of(**options)
        assert any(not torch.allclose(first[m].B, other[m].B, atol=1e-6) for m in first), options
    free, held = (away(of(steps=12, anchor=anchor)) for anchor in (0.0, 1000.0))
    assert held < 0.6 * free


@pytest.fixture
def uneven(made):
    """Beta's expert has three times the norm that it had."""
    folder = made.folder.run("beta").adapter
    stored = read_adapter(folder, base_fingerprint=made.fingerprint)
    tensors = {name: 3 * t if "lora_B" in name else t for name, t in stored.tensors.items()}
    kept = {key: value for key, value in stored.manifest.items() if key not in ("format", "files")}
    write_adapter(folder, stored.config, tensors, kept)
    return made


QUICK = Conditioning(steps=2, rate=1e-4)
MEAN = {"mean": {"class_path": "merge.methods.mean.Mean"}}


def test_the_callback_merges_conditioned_experts_and_keeps_them(uneven, capsys, monkeypatch):
    made = uneven
    options = {"methods": MEAN, "gram_rows": 3, "gate_n": 0, "condition": QUICK}
    callback(made, **options).finish()
    assert "conditioned beta: norm " in capsys.readouterr().out
    folder = made.folder.path / "merged/.conditioned" / QUICK.name
    found = {s: read_manifest(folder / s)["metrics"] for s in SPECIALTIES}
    smallest = min(each["norm_of_expert"] for each in found.values())
    assert max(each["norm_of_expert"] for each in found.values()) > 2 * smallest
    for specialty in SPECIALTIES:
        assert found[specialty]["norm"] == pytest.approx(smallest, rel=0.02)
        vector = task_vector_of(read_adapter(folder / specialty, base_fingerprint=made.fingerprint))
        assert norm(vector) == pytest.approx(found[specialty]["norm"], rel=1e-5)
    merged = task_vector_of(read_adapter(made.folder.merged("mean") / "adapter", base_fingerprint=made.fingerprint))
    own = [task_vector_of(read_adapter(folder / s, base_fingerprint=made.fingerprint)) for s in SPECIALTIES]
    for module in merged:
        expected = (own[0].delta(module) + own[1].delta(module)) / 2
        torch.testing.assert_close(merged.delta(module), expected, rtol=1e-4, atol=1e-6)
    loads, hashes = made.loads, [adapter_sha256(folder / s) for s in SPECIALTIES]
    callback(made, **options).finish()
    assert (made.loads, capsys.readouterr().out) == (loads, "")

    # a kill after the first expert costs the second alone, and the bytes are those of one go
    (folder / "beta/manifest.json").unlink()
    model = MergeAnswers(made, max_new_tokens=6)
    experts = {s: [made.folder.run(s).adapter] for s in SPECIALTIES}
    told = []
    monkeypatch.setattr("builtins.print", lambda *words, **_: told.append(words))
    model.conditioned(experts, folder, QUICK, 3)
    assert [adapter_sha256(folder / s) for s in SPECIALTIES] == hashes
    model.conditioned(experts, folder, Conditioning(steps=3, rate=1e-4), 3)
    assert adapter_sha256(folder / "alpha") != hashes[0]


def test_a_zero_expert_is_refused(made, tmp_path):
    folder = made.folder.run("beta").adapter
    stored = read_adapter(folder, base_fingerprint=made.fingerprint)
    tensors = {name: 0 * t if "lora_B" in name else t for name, t in stored.tensors.items()}
    kept = {key: value for key, value in stored.manifest.items() if key not in ("format", "files")}
    write_adapter(folder, stored.config, tensors, kept)
    with pytest.raises(ValueError, match="beta: this expert is zero"):
        callback(made, methods=MEAN, gram_rows=2, gate_n=0, condition=QUICK).finish()
