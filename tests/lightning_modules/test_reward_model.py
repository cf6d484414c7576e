# Reference: each answer with its whole prompt, padded, through transformers' own forward; and what settings promise.
# Run: pytest tests/lightning_modules/test_reward_model.py
import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from datamodules.batch import BadExampleError, Batch
from datamodules.graded import Graded
from lightning_modules.reward_model import RewardModel
from lightning_modules.stage import StageContext
from tests.conftest import noise_image, randomise_adapter
from tests.lightning_modules.rl_harness import Watch
from tests.lightning_modules.test_stage import COMMON
from tests.settings import Register
from tests.slow_reference import qwen_inputs, stock_attention

ACTS = Register(RewardModel.Config, COMMON)
ANSWERS = ("heart 62 of 110, so the answer is wide.", "narrow.", "so which heart is wide, the answer is both, both.")
NAMES = ("accuracy", "overall")


def made(index, answers, grades, sizes=((112, 112),), words=0):
    return Graded(
        f"p{index}",
        tuple(noise_image(10 * index + i, *size) for i, size in enumerate(sizes)),
        "which heart is wide" + " really" * words,
        ("narrow", "wide"),
        "wide",
        f"q{index}",
        answers=answers,
        grades=grades,
    )


def questions():
    """Two, three and one answer; ties; a dimension that one of them does not grade; no picture, one and two."""
    return (
        made(0, ANSWERS[:2], {"accuracy": (1.0, 0.0), "overall": (3.0, 3.0)}),
        made(
            1, ANSWERS, {"accuracy": (0.0, 0.0, 1.0), "overall": (0.0, 2.0, 1.0)}, sizes=((80, 160), (56, 56)), words=3
        ),
        made(2, ANSWERS[1::-1], {"overall": (1.0, 2.0)}, sizes=(), words=6),
        made(3, ANSWERS[2:], {"accuracy": (1.0,)}, sizes=((56, 112),)),
    )


def stage_of(policy, **options):
    options = {"dimensions": NAMES, "lora_rank": 4, "warmup": 0, "max_grad_norm": float("inf")} | options
    stage = RewardModel(RewardModel.Config(**options), context=StageContext(policy, specialty="judge"))
    randomise_adapter(policy, "reward")
    torch.manual_seed(1)
    stage.head.weight.data = torch.randn_like(stage.head.weight) * 0.3
    stage.head.bias.data = torch.randn_like(stage.head.bias) * 0.3
    return stage


def fit(stage, examples, steps=1):
    watch = Watch()
    trainer = L.Trainer(
        max_steps=steps, logger=False, callbacks=[watch], enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu", devices=1,
    )  # fmt: skip
    trainer.fit(stage, DataLoader([Batch(tuple(examples))] * 2 * steps, batch_size=None))
    return watch, trainer


def slow_rewards(stage, example):
    """(answers, D): a padded rectangle of whole rows, nothing shared, read at each row's own last token."""
    policy, family = stage.policy, stage.policy.family
    prompt = policy.prompt(example, "")
    rows = [[*prompt.ids, *policy.completion_ids(text)] for text in example.answers]
    width = max(map(len, rows)) + 3
    ids = torch.tensor([row + [family.pad_token_id] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    with stock_attention(family.model):
        inputs = qwen_inputs(family, ids, prompt)
        for name in ("pixel_values", "image_grid_thw"):
            if name in inputs:
                inputs[name] = torch.cat([inputs[name]] * len(rows))
        hidden = family.model(**inputs, attention_mask=mask, output_hidden_states=True).hidden_states[-1]
    ends = torch.tensor([len(row) - 1 for row in rows])
    last = hidden[torch.arange(len(rows)), ends]
    return last @ stage.head.weight.t() + stage.head.bias


def slow_loss(stage, examples):
    """Every verdict by itself, straight from its formula."""
    terms = []
    for example in examples:
        found = slow_rewards(stage, example)
        for column, name in enumerate(NAMES):
            grades = example.grades.get(name)
            if grades is None:
                continue
            if stage.config.objective == "outcome":
                terms += [-(r if g else -r).sigmoid().log() for r, g in zip(found[:, column], grades, strict=True)]
                continue
            for i in range(len(grades)):
                for j in range(i + 1, len(grades)):
                    if grades[i] != grades[j]:
                        margin = found[i, column] - found[j, column]
                        terms.append(-(margin if grades[i] > grades[j] else -margin).sigmoid().log())
    return torch.stack(terms).mean(), len(terms)


@ACTS.acts("objective", "dimensions")
@pytest.mark.parametrize("objective", ["preference", "outcome"])
@pytest.mark.parametrize("budget", [100_000, 200, 1])
def test_a_step_is_the_slow_reference_in_value_and_gradient(tiny_policy, objective, budget):
    examples = questions()
    if objective == "outcome":
        examples = tuple(
            made(
                i,
                e.answers,
                {n: tuple(float(g > 1) for g in held) for n, held in e.grades.items()},
                sizes=((56, 112),) * len(e.images),
            )
            for i, e in enumerate(examples)
        )
    stage = stage_of(tiny_policy, objective=objective, micro_batch_tokens=budget)
    before = {name: p.detach().clone() for name, p in stage.trained.items()}
    assert ("head.bias" in before) == (objective == "outcome")
    watch, trainer = fit(stage, examples)
    with torch.no_grad():
        for name, parameter in stage.trained.items():
            parameter.copy_(before[name])
    loss, verdicts = slow_loss(stage, examples)
    assert verdicts == (7 if objective == "preference" else 13)
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(float(loss.detach()), rel=1e-5)
    reference = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(stage.trained.values()))])
    torch.testing.assert_close(watch.gradients[0], reference, atol=2e-6, rtol=2e-4)


def test_a_reward_depends_on_its_answer_alone(tiny_policy):
    stage = stage_of(tiny_policy)
    one, three = questions()[0], questions()[1]
    with torch.no_grad():
        (given,), (swapped,), both = (
            [margins for margins, _ in stage.trials(Batch(examples))]
            for examples in ((one,), (one.swapped,), (three, one))
        )
    torch.testing.assert_close(swapped, -given, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(both[0][-1:], given, atol=2e-6, rtol=1e-5)
    first, second = slow_rewards(stage, one).detach()
    torch.testing.assert_close(given[0], first - second, atol=2e-6, rtol=1e-5)


def test_the_shared_prompt_is_read_once(tiny_policy):
    stage, example = stage_of(tiny_policy), questions()[1]
    prompt = stage.policy.prompt(example, "")
    tails = [stage.policy.completion_ids(text) for text in example.answers]
    line = stage.policy.line([prompt] * 3, tails)
    assert len(line.ids) == len(prompt.ids) - 1 + sum(map(len, tails)) + 3
    assert len(line.images) == 2


@ACTS.acts("learning_rate", "lora_rank", "lora_alpha", "lora_seed")
def test_settings_act(fresh_policy):
    def after(**options):
        stage = stage_of(fresh_policy(), **options)
        shapes = {tuple(p.shape) for name, p in stage.trained.items() if "lora_A" in name}
        first = next(p for name, p in stage.trained.items() if "lora_A" in name).detach().clone()
        fit(stage, questions()[:1])
        return shapes, first, stage.head.weight.detach().clone()

    shapes, first, head = after()
    assert {rank for rank, _ in shapes} == {4}
    assert {rank for rank, _ in after(lora_rank=2)[0]} == {2}
    assert not torch.equal(after(lora_seed=7)[1], first)
    assert not torch.equal(after(learning_rate=0.5)[2], head)
    # what acts on the states, the scale of the update, changes the head's gradient
    stage, other = stage_of(fresh_policy()), stage_of(fresh_policy(), lora_alpha=320.0)
    with torch.no_grad():
        mine, others = (next(s.trials(Batch(questions()[:1])))[0] for s in (stage, other))
    assert not torch.allclose(mine, others)


def test_validation_fits_a_temperature_and_names_dimensions(tiny_policy):
    stage = stage_of(tiny_policy)
    fit(stage, questions()[:3])
    trials = list(stage.trials(Batch(questions()[:3])))
    with torch.no_grad():
        found = stage.validated(trials)
    assert set(found) == {
        "val/loss", "val/accuracy/judge", "val/temperature/judge", "val/ece/judge", "val/brier/judge",
        "val/dimension/accuracy", "val/dimension/overall",
    }  # fmt: skip
    loss, verdicts = slow_loss(stage, questions()[:3])
    assert found["val/loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    right = found["val/dimension/accuracy"] * 3 + found["val/dimension/overall"] * 4
    assert found["val/accuracy/judge"] == pytest.approx(right / verdicts) == pytest.approx(right / 7)


def test_what_it_cannot_learn_from_is_refused_before_training(mixed_examples):
    config = RewardModel.Config()
    with pytest.raises(BadExampleError, match="'q0': has no graded answers"):
        RewardModel.check_questions(config, mixed_examples)
    with pytest.raises(BadExampleError, match=r"is graded on accuracy, overall, and on none of the dimensions .*tact"):
        RewardModel.check_questions(RewardModel.Config(dimensions=("tact",)), questions())
    with pytest.raises(BadExampleError, match="'q0': objective=outcome takes grades of 0"):
        RewardModel.check_questions(RewardModel.Config(objective="outcome", dimensions=NAMES), questions())
    RewardModel.check_questions(RewardModel.Config(objective="outcome", dimensions=("accuracy",)), questions()[:2])
    with pytest.raises(ValueError, match="dimensions must be one or more different names"):
        RewardModel.Config(dimensions=("overall", "overall"))
    with pytest.raises(BadExampleError, match="'q5': 1 grades of overall for 2 answers"):
        made(5, ANSWERS[:2], {"overall": (1.0,)})
    with pytest.raises(BadExampleError, match="none of them empty"):
        made(5, ("wide", " "), {"overall": (1.0, 0.0)})


def test_every_setting_has_a_test_that_needs_it():
    ACTS.check()
