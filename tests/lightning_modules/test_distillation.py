# Reference: one row at a time, the full prompt, the stock forward, the whole vocabulary, sums as they are written down;
# everything goes through Trainer.fit and training_step. What the student writes is made (rl_harness.py).
# Run: pytest tests/lightning_modules/test_distillation.py
import random
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy

from datamodules.batch import SPECIALTY, Batch
from datamodules.mixture import told
from lightning_modules import teacher_gate
from lightning_modules.adapters import LoRASettings
from lightning_modules.distillation import Integrate
from lightning_modules.distillation_settings import IntegrationSettings
from lightning_modules.rollout import Completion
from lightning_modules.sharding import ShardedBase
from lightning_modules.stage import StageContext
from tests.conftest import made_example, randomise_adapter
from tests.lightning_modules.rl_harness import PLAIN, WRONG, Fit, MadeEngine, a_part, loader, made, run
from tests.lightning_modules.test_rl_devices import ASKED, Questions
from tests.lightning_modules.test_stage import COMMON
from tests.settings import Register
from tests.slow_reference import stock_log_distribution

INTEGRATE = Register(Integrate.Config, COMMON)
TEACHERS = {"heart": ("heart_dsa",), "brain": ("brain_dsa", "brain_rl")}
EXAMPLES = [
    told("heart", made_example(0)),
    told("brain", made_example(1, sizes=((112, 112), (80, 160)), words=3)),
    told("heart", made_example(2, sizes=(), words=7)),
    told("brain", made_example(3, sizes=((160, 80),), words=1)),
]
RIGHT, NOT_RIGHT = Completion((1,), (0.0,), PLAIN, False), Completion((1,), (0.0,), WRONG, False)


def context_of(policy, seed=0) -> StageContext:
    """Two specialties' experts, one of them of two adapters."""
    for number, name in enumerate(name for names in TEACHERS.values() for name in names):
        policy.add_adapter(name, LoRASettings(rank=4))
        randomise_adapter(policy, name, seed=20 + number, scale=0.15)
    return StageContext(policy, (), "agent", seed, teachers=TEACHERS)


def stage_of(policy, seed=0, **settings) -> Integrate:
    plain = {"max_new_tokens": 60, "lora_rank": 4, "engine": made(), "gate": "none", "warmup": 0, "learning_rate": 0.01}
    config = replace(Integrate.Config(), **({"max_grad_norm": float("inf")} | plain | settings))
    return Integrate(config, context=context_of(policy, seed))


def fit(policy, *, steps=1, examples=EXAMPLES, rates=None, **settings) -> Fit:
    """Real steps on the same questions; `rates` are what the teachers were found to be right in, by question."""
    stage = stage_of(policy, **settings)
    randomise_adapter(policy, "agent", seed=5)
    stage.gate.rates.update(rates or {})
    return run(stage, steps, loader([Batch(tuple(examples))] * (2 * steps)))


def slow(found: Fit, shares: dict[str, float], rows=None) -> tuple[torch.Tensor, dict[str, float]]:
    """Gradient of the first step, and each specialty's KL in nats per token; `rows` that are taught, or all."""
    stage, rollouts = found.stage, found.rollouts[0]
    policy, c, trained = stage.policy, stage.config, list(stage.trained.values())
    with torch.no_grad():
        pieces = found.weights[0].split([parameter.numel() for parameter in trained])
        for parameter, values in zip(trained, pieces, strict=True):
            parameter.copy_(values.view_as(parameter))
    vocabulary = policy.family.logits(torch.zeros(1, policy.family.hidden_size)).shape[1]
    keep = torch.tensor([token not in policy.banned for token in range(vocabulary)])
    losses, kls, tokens = (dict.fromkeys(TEACHERS, 0.0) for _ in range(3))
    for row, completion in enumerate(rollouts.completions):
        specialty = rollouts.examples[row // rollouts.layout.size].tags[SPECIALTY]
        if rows is not None and row not in rows:
            continue
        asked = policy.prompt(rollouts.examples[row // rollouts.layout.size], "")
        ids = list(completion.ids)
        log_p = stock_log_distribution(policy, asked, ids, c.temperature)
        with torch.no_grad(), policy.acting(TEACHERS[specialty]):
            log_q = stock_log_distribution(policy, asked, ids, c.temperature)
        p, q = log_p[:, keep].double(), log_q[:, keep].double()
        kl = (q.exp() * (q - p)).sum(-1) if c.form == "forward" else (p.exp() * (p - q)).sum(-1)
        if c.form == "policy_gradient":
            own, other = (held.gather(-1, torch.tensor(ids)[:, None])[:, 0].double() for held in (log_p, log_q))
            ratio = (own - other).detach()
            losses[specialty] += (ratio.clamp(-c.log_ratio_clip, c.log_ratio_clip) * own).sum()
            kls[specialty] += float((torch.exp(-ratio) + ratio - 1).sum())  # Schulman's estimate from the tokens drawn
        else:
            losses[specialty] += kl.sum()
            kls[specialty] += float(kl.detach().sum())
        tokens[specialty] += len(ids)
    loss = sum(shares[s] * losses[s] / tokens[s] for s in TEACHERS if tokens[s])
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, trained)])
    return gradient, {s: kls[s] / tokens[s] for s in TEACHERS if tokens[s]}


@INTEGRATE.acts("form", "log_ratio_clip", "temperature", "token_shares", "rollouts_per_question")
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.6, "rollouts_per_question": 2, "micro_batch_tokens": 150},
        {"token_shares": "as_written"},
        {"form": "forward", "temperature": 0.7},
        {"form": "policy_gradient", "temperature": 0.8, "log_ratio_clip": 0.3},
        {"form": "policy_gradient", "log_ratio_clip": float("inf"), "token_shares": "as_written"},
    ],
    ids=["full", "tempered, in pieces", "by tokens", "forward", "policy gradient", "policy gradient by tokens"],
)
def test_a_step_is_the_slow_reference_s(tiny_policy, settings):
    found = fit(tiny_policy, **settings)
    rollouts = found.rollouts[0]
    assert rollouts.shape == (4, settings.get("rollouts_per_question", 1))
    tokens = dict.fromkeys(TEACHERS, 0)
    for row, completion in enumerate(rollouts.completions):
        tokens[rollouts.examples[row // rollouts.layout.size].tags[SPECIALTY]] += len(completion.ids)
    share = {s: count / sum(tokens.values()) for s, count in tokens.items()}
    assert abs(share["heart"] - 0.5) > 0.01  # else both ways of counting are one
    wanted = share if settings.get("token_shares") == "as_written" else dict.fromkeys(TEACHERS, 0.5)
    gradient, kls = slow(found, wanted)
    torch.testing.assert_close(found.gradients[0], gradient, atol=2e-6, rtol=1e-3)
    assert float(torch.cosine_similarity(found.gradients[0], gradient, dim=0)) > 0.99999
    metrics = found.metrics[0]
    for specialty in TEACHERS:
        assert metrics[f"train/specialty/{specialty}/kl_nats"] == pytest.approx(kls[specialty], rel=1e-3)
        assert metrics[f"train/specialty/{specialty}/weight"] == pytest.approx(wanted[specialty])
        assert metrics[f"train/specialty/{specialty}/token_share"] == pytest.approx(share[specialty])
    assert metrics["train/kl/teacher_nats"] == pytest.approx(sum(kls.values()) / 2, rel=1e-3)


@INTEGRATE.acts("written_by")
@pytest.mark.parametrize("form", ["full", "forward"])
def test_the_experts_write_what_both_are_compared_on(tiny_policy, form):
    wrote = []

    class Watched(MadeEngine):
        """Remembers who acted."""

        def generate(self, policy, prompts, copies, seeds, **how):
            wrote.append((policy.active, [prompt.ids for prompt in prompts]))
            return super().generate(policy, prompts, copies, seeds, **how)

    stage = stage_of(tiny_policy, written_by="teacher", form=form, rollouts_per_question=2)
    stage.asker = replace(stage.asker, engine=Watched(MadeEngine.Config()))
    randomise_adapter(tiny_policy, "agent", seed=5)
    found = run(stage, 1, loader([Batch(tuple(EXAMPLES))] * 2))
    own = {names: [e for e in EXAMPLES if e.tags[SPECIALTY] == s] for s, names in TEACHERS.items()}
    assert wrote == [(names, [tiny_policy.prompt(e, "").ids for e in asked]) for names, asked in own.items()]
    assert [e.question_id for e in found.rollouts[0].examples] == [e.question_id for e in EXAMPLES]
    assert found.rollouts[0].shape == (4, 2)
    assert tiny_policy.active == ("agent",)
    gradient, kls = slow(found, dict.fromkeys(TEACHERS, 0.5))
    torch.testing.assert_close(found.gradients[0], gradient, atol=2e-6, rtol=1e-3)
    assert float(torch.cosine_similarity(found.gradients[0], gradient, dim=0)) > 0.99999
    for specialty in TEACHERS:
        assert found.metrics[0][f"train/specialty/{specialty}/kl_nats"] == pytest.approx(kls[specialty], rel=1e-3)


def test_the_experts_answer_with_the_words_of_their_own_stream(fresh_policy):
    """A question's answer does not hang on who is asked beside it: the same places, so the same seeds."""
    taught, alone = (fit(fresh_policy(), written_by=who) for who in ("teacher", "student"))
    texts = [[completion.text for completion in found.rollouts[0].completions] for found in (taught, alone)]
    assert texts[0] == texts[1]  # the made engine writes by seed alone


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"form": "policy_gradient"}, "needs tokens that the student itself drew; set written_by=student"),
        ({"gate": "better"}, "compares a teacher with the student's own answers"),
        (
            {"engine": {"class_path": "lightning_modules.engines.vllm.VLLM", "init_args": {"python": "python"}}},
            "holds one copy of the student",
        ),
    ],
)
def test_what_the_experts_cannot_write_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Integrate.check(replace(Integrate.Config(), written_by="teacher", **settings))


def test_the_student_comes_nearer_to_each_teacher_where_that_one_teaches(tiny_policy):
    found = fit(tiny_policy, steps=8, learning_rate=0.02, schedule="constant")
    for specialty in TEACHERS:
        kls = [metrics[f"train/specialty/{specialty}/kl_nats"] for metrics in found.metrics]
        assert kls[-1] < 0.85 * kls[0], kls


@INTEGRATE.acts("gap_exponent", "gap_memory")
@pytest.mark.parametrize(("exponent", "memory"), [(1.0, 0.9), (2.0, 0.25), (0.0, 0.5)])
def test_weights_follow_the_distance_as_it_was_before_the_step(tiny_policy, exponent, memory):
    found = fit(tiny_policy, steps=3, gap_exponent=exponent, gap_memory=memory)
    kls, weights = (
        [[m[f"train/specialty/{s}/{what}"] for s in TEACHERS] for m in found.metrics] for what in ("kl_nats", "weight")
    )
    assert weights[0] == [0.5, 0.5]  # nothing is known yet
    gaps = kls[0]
    for step in (1, 2):
        powers = [gap**exponent for gap in gaps]
        assert weights[step] == pytest.approx([power / sum(powers) for power in powers])
        gaps = [memory * gap + (1 - memory) * kl for gap, kl in zip(gaps, kls[step], strict=True)]
    assert list(found.stage.gaps.values()) == pytest.approx(gaps)


@INTEGRATE.acts("gate")
@pytest.mark.parametrize(
    ("gate", "rates", "taught"),
    [
        ("none", [0.0, 0.0, 0.0, 0.0], [0, 1, 2, 3]),
        ("right", [1.0, 0.0, 0.0, 0.5], [0, 3]),
        ("better", [1.0, 0.5, 0.0, 1.0], "where the student is not"),
        ("right", [1.0, 0.0, 1.0, 0.0], [0, 2]),  # one specialty has nothing to teach
    ],
)
def test_a_teacher_teaches_where_it_is_worth_it(tiny_policy, gate, rates, taught):
    known = {example.question_id: rate for example, rate in zip(EXAMPLES, rates, strict=True)}
    found = fit(tiny_policy, gate=gate, rates=known, engine=made(texts=(PLAIN, WRONG)))
    right = [reward.right for reward in found.rollouts[0].rewards]
    if gate == "better":
        assert right[0] or right[3], "the student's own answers must make a difference"
        taught = [row for row in range(4) if rates[row] > right[row]]
        assert taught
    there = {EXAMPLES[row].tags[SPECIALTY] for row in taught}
    gradient, _ = slow(found, {s: 1 / len(there) if s in there else 0.0 for s in TEACHERS}, taught)
    torch.testing.assert_close(found.gradients[0], gradient, atol=2e-6, rtol=1e-3)
    metrics = found.metrics[0]
    for specialty, rows in {"heart": (0, 2), "brain": (1, 3)}.items():
        assert metrics[f"train/specialty/{specialty}/taught"] == sum(row in taught for row in rows) / 2
        assert metrics[f"train/specialty/{specialty}/correct"] == sum(right[row] for row in rows) / 2
        assert (f"train/specialty/{specialty}/kl_nats" in metrics) == (specialty in there)


def test_where_nobody_teaches_nothing_moves(tiny_policy):
    found = fit(tiny_policy, gate="right", rates={example.question_id: 0.0 for example in EXAMPLES})
    assert float(found.gradients[0].abs().max()) == 0.0
    assert "train/kl/teacher_nats" not in found.metrics[0]
    assert found.stage.gaps == {}


@contextmanager
def plainly(policy):
    """Instead of folding, which hides the adapters that act."""
    yield


@INTEGRATE.acts("gate_samples", "gate_temperature", "max_new_tokens")
def test_each_teacher_is_asked_each_question_once_under_its_own_adapters(tiny_policy, monkeypatch):
    asked = []

    def made_answers(policy, prompts, **how):
        asked.append((policy.active, len(prompts), how))
        rows = len(prompts) * how["copies"]
        return [RIGHT if row % 4 < 3 else NOT_RIGHT for row in range(rows)]

    monkeypatch.setattr(teacher_gate, "sample", made_answers)
    monkeypatch.setattr(type(tiny_policy), "folded", plainly)
    found = fit(tiny_policy, steps=3, gate="right", gate_samples=4, gate_temperature=0.3, max_new_tokens=50)
    assert [(active, count) for active, count, _ in asked] == [(names, 2) for names in TEACHERS.values()]
    for _, _, how in asked:
        assert (how["copies"], how["temperature"], how["max_new_tokens"]) == (4, 0.3, 50)
        assert len(set(how["seeds"])) == 8
        assert how["rows_at_once"] == 128
    assert found.stage.gate.rates == {example.question_id: 0.75 for example in EXAMPLES}
    assert found.stage.asker.max_new_tokens == 50


def test_a_teacher_that_is_asked_answers_what_comes_next_too(tiny_policy, monkeypatch):
    asked = []

    def made_answers(policy, prompts, **how):
        asked.append((policy.active, [prompt.ids for prompt in prompts]))
        return [RIGHT] * len(prompts)

    monkeypatch.setattr(teacher_gate, "sample", made_answers)
    monkeypatch.setattr(type(tiny_policy), "folded", plainly)
    stage = stage_of(tiny_policy, gate="right")
    first, then = Batch(tuple(EXAMPLES[:2]), ahead=tuple(EXAMPLES[1:])), Batch(tuple(EXAMPLES[2:]))
    run(stage, 2, loader([first, then] * 2))
    expected = {names: [e for e in EXAMPLES if e.tags[SPECIALTY] == s] for s, names in TEACHERS.items()}
    assert asked == [(names, [tiny_policy.prompt(e, "").ids for e in own]) for names, own in expected.items()]


def test_teachers_answer_as_many_rows_at_once_as_the_engine_may(tiny_policy):
    engine = a_part("engines.packed.Packed", rows_at_once=5)
    assert stage_of(tiny_policy, gate="right", engine=engine).gate.rows_at_once == 5


@INTEGRATE.acts("engine")
def test_the_student_s_answers_are_the_engine_s(tiny_policy):
    found = fit(tiny_policy, engine=made(texts=(WRONG,), limit_at=-1))
    assert {completion.text for completion in found.rollouts[0].completions} == {WRONG}
    assert found.metrics[0]["train/reward/correct"] == 0.0
    assert found.metrics[0]["train/completion/parsed"] == 1.0


@INTEGRATE.acts("questions_per_specialty")
def test_a_step_takes_so_many_questions_of_every_specialty(tiny_policy):
    assert stage_of(tiny_policy, questions_per_specialty=3).feed().size == 6


@INTEGRATE.acts("lora_rank", "lora_alpha", "lora_seed")
def test_a_student_from_zero_has_the_shape_that_is_set(fresh_policy):
    def factors(**settings):
        config, tensors = stage_of(fresh_policy(), **settings).policy.adapter_state("agent")
        return config, torch.cat([value.flatten() for name, value in tensors.items() if "lora_A" in name])

    config, first = factors(lora_rank=6, lora_alpha=18.0)
    assert (config["r"], config["lora_alpha"]) == (6, 18.0)
    assert torch.equal(first, factors(lora_rank=6)[1])
    assert not torch.equal(first, factors(lora_rank=6, lora_seed=1)[1])


def test_a_student_goes_on_from_the_adapter_that_is_there(tiny_policy):
    tiny_policy.add_adapter("agent", LoRASettings(rank=3, alpha=9.0))
    randomise_adapter(tiny_policy, "agent", seed=8)
    before = tiny_policy.adapter_state("agent")[1]
    stage = stage_of(tiny_policy)
    config, after = stage.policy.adapter_state("agent")
    assert config["r"] == 3
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert stage.trained
    assert all(".agent." in name for name in stage.trained)


def test_the_teachers_do_not_move(tiny_policy):
    stage = stage_of(tiny_policy)
    randomise_adapter(tiny_policy, "agent", seed=5)
    before = {name: p.clone() for name, p in tiny_policy.named_parameters() if ".agent." not in name}
    run(stage, 2, loader([Batch(tuple(EXAMPLES))] * 4))
    assert all(torch.equal(p, before[name]) for name, p in tiny_policy.named_parameters() if name in before)
    assert tiny_policy.active == ("agent",)


def on_devices(folder, policy, devices, strategy, asked, rates, **settings) -> list:
    """What every device found in three steps: gradients, metrics, distances, the gate's rates, where the base lay."""
    if torch.cuda.is_initialized():
        pytest.skip("forks, which CUDA does not survive: run this file alone with CUDA_VISIBLE_DEVICES= ")
    stage = stage_of(policy, **settings)
    randomise_adapter(policy, "agent", seed=5)
    stage.gate.rates.update(rates)
    policy.double()

    def finish(found, rank):
        left = (found.stage.gaps, found.stage.gate.rates, [*ASKED, found.stage.policy.in_parts])
        torch.save((found.gradients, found.metrics, *left), folder / f"{devices}.{rank}")

    ASKED.clear()
    stage.state_dict = lambda *_, **__: {}  # what forked devices send back to this process, which needs no part of it
    how = {"strategy": strategy(start_method="fork", broadcast_buffers=False) if devices > 1 else "auto"}
    questions = Questions(Batch(tuple(asked)), 3)
    run(stage, 3, questions, finish=finish, devices=devices, use_distributed_sampler=False, **how)
    return [torch.load(folder / f"{devices}.{rank}", weights_only=False) for rank in range(devices)]


def assert_two_are_one(folder, fresh_policy, strategy, asked, rates=None, **settings) -> None:
    """Hold the gradients and metrics of two devices to those of one."""
    about = (asked, rates or {})
    ((gradients, metrics, gaps, rates, _),) = on_devices(folder, fresh_policy(), 1, strategy, *about, **settings)
    shares = on_devices(folder, fresh_policy(), 2, strategy, *about, **settings)
    assert gradients[0].norm() > 1e-6
    for own, _, own_gaps, _, parts in shares:
        for found, expected in zip(own, gradients, strict=True):
            assert float((found - expected).norm() / expected.norm()) < 1e-6
        assert own_gaps == pytest.approx(gaps, rel=1e-6)
        assert parts[-1] == (strategy is ShardedBase)  # while it learns
        assert not any(parts[:-1])  # while anything is written
    for found, expected in zip(shares[0][1], metrics, strict=True):
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-7)  # log-probabilities are float32
    assert shares[0][3] | shares[1][3] == rates


REAL = {"engine": a_part("engines.packed.Packed"), "max_new_tokens": 8}
UNEVEN = (EXAMPLES[0], EXAMPLES[1], EXAMPLES[3])  # two on one device, one on the other, of one specialty on both
KNOWN = dict(zip((example.question_id for example in EXAMPLES), (1.0, 1.0, 0.0, 1.0), strict=True))


def test_two_devices_with_half_a_base_each_take_the_steps_of_one(tmp_path, fresh_policy):
    watched = made() | {"class_path": "tests.lightning_modules.test_rl_devices.Watched"}
    assert_two_are_one(tmp_path, fresh_policy, ShardedBase, UNEVEN, engine=watched, micro_batch_tokens=1)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [DDPStrategy, ShardedBase])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"form": "policy_gradient", "token_shares": "as_written", "gate": "right"},
        {"written_by": "teacher", "form": "forward", "rollouts_per_question": 2, "micro_batch_tokens": 150},
        REAL,
    ],
    ids=["full", "policy gradient, gated", "the experts write", "the real engine"],
)
def test_two_devices_take_the_steps_of_one(tmp_path, fresh_policy, settings, strategy):
    assert_two_are_one(tmp_path, fresh_policy, strategy, UNEVEN, KNOWN, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [DDPStrategy, ShardedBase])
def test_a_gate_that_asks_is_the_same_on_two_devices(tmp_path, fresh_policy, strategy, monkeypatch):
    """Real answers of the teachers, with the base whole; that they are right is made, by the question's number."""
    monkeypatch.setattr(teacher_gate.TeacherGate, "ask", asked_for_real(teacher_gate.TeacherGate.ask))
    gated = {"gate": "right", "gate_samples": 2, "gate_temperature": 0.9, **REAL}
    assert_two_are_one(tmp_path, fresh_policy, strategy, UNEVEN, **gated)


def asked_for_real(ask):
    """Asks, and takes the first specialty's first question and all of the second's for answered rightly."""

    def asked(gate, examples):
        ASKED.append(gate.policy.in_parts)
        ask(gate, examples)
        gate.rates.update({example.question_id: KNOWN[example.question_id] for example in examples})

    return asked


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_whatever_the_devices_share_out_a_base_in_parts_changes_nothing(tmp_path, fresh_policy, seed):
    """Other numbers of questions, of either specialty, other pieces, other rows that are taught."""
    draw = random.Random(seed)
    asked = [
        told(draw.choice(list(TEACHERS)), made_example(n, ((112, 112),) * draw.randrange(3), draw.randrange(9)))
        for n in range(draw.randint(2, 6))
    ]
    rates = {example.question_id: float(number == 0 or draw.random() < 0.6) for number, example in enumerate(asked)}
    settings = {"micro_batch_tokens": draw.choice([1, 120, 400]), "rollouts_per_question": draw.randint(1, 2)}
    settings |= draw.choice([{}, {"form": "forward", "written_by": "teacher"}, {"form": "policy_gradient"}])
    assert_two_are_one(tmp_path, fresh_policy, ShardedBase, asked, rates, gate="right", **settings)


class Copied(MadeEngine):
    """An engine that samples from a copy."""

    exact = False


def test_what_does_not_go_together_is_refused(tiny_policy):
    with pytest.raises(ValueError, match="no expert to learn from"):
        Integrate(context=StageContext(tiny_policy))
    copied = {"class_path": f"{__name__}.Copied", "init_args": {}}
    with pytest.raises(ValueError, match="take form=full"):
        Integrate.check(Integrate.Config(form="policy_gradient", engine=copied))
    Integrate.check(Integrate.Config(engine=copied))
    with pytest.raises(ValueError, match="gate_samples must be 1 at gate_temperature 0"):
        IntegrationSettings(gate_samples=2)
