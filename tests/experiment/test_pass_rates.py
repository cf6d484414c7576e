"""Reference: the same questions asked by hand. Run: pytest tests/experiment/test_pass_rates.py."""

import json
from contextlib import contextmanager, nullcontext

import pytest

from answering.asking import ask
from answering.decoding import Decoding
from answering.pass_rates import by_pass_rate, pass_rates
from datamodules.base import VQADataModule
from datamodules.loading import Feed
from evaluation.scorers import strict
from tests.lightning_modules.rl_acts import RL

ONLY = ("callbacks.merge=null", "callbacks.evaluate=null", "only=[alpha]", "trainer.max_steps=3")


def test_rates_are_shares_of_right_samples_and_measured_once(tiny_policy, mixed_examples, tmp_path, monkeypatch):
    # a random model is never right: every second sample of a question is made right by hand
    def half_right(policy, part, instruction, decoding):
        given = ask(policy, part, instruction, decoding)
        right = "<think>heart 62 of 110, wide.</think><answer>B</answer>"
        return [given[i].__class__(right, (1,), 1, False) if i % 2 else given[i] for i in range(len(given))]

    calls, held = [], nullcontext(tiny_policy)
    monkeypatch.setattr("answering.pass_rates.ask", lambda *rest: calls.append(len(rest[1])) or half_right(*rest))
    decoding = Decoding(8, 1.0, 4, 0, 8)
    rates = pass_rates(held, mixed_examples, decoding, {"base": "b"}, [tmp_path / "a", tmp_path / "b"])
    assert rates == {example.question_id: 0.5 for example in mixed_examples}
    assert calls == [2, 2]  # 8 rows at once of 4 samples each
    again = pass_rates(held, mixed_examples, decoding, {"base": "b"}, [tmp_path / "c", tmp_path / "a"])
    assert again == rates
    assert len(calls) == 2
    assert not (tmp_path / "c").exists()
    pass_rates(held, mixed_examples, decoding, {"base": "another"}, [tmp_path / "a"])
    assert len(calls) == 4
    (file,) = (path for path in (tmp_path / "a").iterdir() if '"b"' in path.read_text())
    content = json.loads(file.read_text())
    content["rates"].pop("q0")
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="is damaged"):
        pass_rates(held, mixed_examples, decoding, {"base": "b"}, [tmp_path / "a"])


def test_the_other_processes_of_a_run_take_what_the_first_has_measured(
    tiny_policy, mixed_examples, tmp_path, monkeypatch
):
    waited = []

    def wait(done):
        waited.append(done())
        with monkeypatch.context() as first:
            first.setenv("RANK", "0")
            pass_rates(*given)
        assert done()
        monkeypatch.setattr("answering.pass_rates.ask", None)  # this process asks nothing

    given = (nullcontext(tiny_policy), mixed_examples, Decoding(8, 1.0, 4, 0, 8), {"base": "b"}, [tmp_path])
    monkeypatch.setattr("answering.pass_rates.wait_for_first", wait)
    monkeypatch.setenv("RANK", "1")
    assert pass_rates(*given) == dict.fromkeys((example.question_id for example in mixed_examples), 0.0)
    assert waited == [False]


def test_a_greedy_rate_is_what_the_matrix_would_count(tiny_policy, mixed_examples, tmp_path):
    decoding = Decoding(8)
    rates = pass_rates(nullcontext(tiny_policy), mixed_examples, decoding, {}, [tmp_path])
    given = ask(tiny_policy, mixed_examples, "", decoding)
    by_hand = {e.question_id: float(strict(a.prediction(e)).right) for e, a in zip(mixed_examples, given, strict=True)}
    assert rates == by_hand


def test_the_first_of_several_devices_measures_and_the_others_wait_for_it(
    tiny_policy, mixed_examples, tmp_path, monkeypatch
):
    @contextmanager
    def never():
        raise AssertionError("another device held the model")
        yield

    def first_is_done(done):
        assert not done()
        with monkeypatch.context() as patch:
            patch.delenv("LOCAL_RANK")
            measured.update(pass_rates(nullcontext(tiny_policy), mixed_examples, Decoding(8), {}, [tmp_path]))
        assert done()

    measured = {}
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr("answering.pass_rates.wait_for_first", first_is_done)
    assert pass_rates(never(), mixed_examples, Decoding(8), {}, [tmp_path]) == measured != {}


def test_questions_by_rate():
    rates = {"a": 0.0, "b": 0.5, "c": 1.0, "d": 0.5, "e": 0.25}
    assert by_pass_rate(rates, 0.25, 0.75, easy_first=False) == ("b", "d", "e")
    assert by_pass_rate(rates, 0.0, 1.0, easy_first=True) == ("c", "b", "d", "e", "a")


def order(monkeypatch) -> list[list[str]]:
    """The questions of every training step, as the module sees them."""
    from lightning_modules.rl_gba import GBA

    seen, step = [], GBA.training_step
    monkeypatch.setattr(
        GBA, "training_step", lambda self, b, i: seen.append([e.question_id for e in b.examples]) or step(self, b, i)
    )
    return seen


@RL.acts("pass_rate", "pass_rate_samples", "curriculum")
def test_a_run_takes_the_questions_of_its_range_and_the_order_of_its_curriculum(lineage, tmp_path, monkeypatch, capsys):
    other, asked = lineage.copy(tmp_path / "runs"), []

    def made(attached, questions, decoding, made_from, places):
        with attached as policy:
            asked.append((decoding.samples, policy.active, len(places)))
        return {example.question_id: number / 100 for number, example in enumerate(questions)}

    monkeypatch.setattr("experiment.question_choice.pass_rates", made)
    seen = order(monkeypatch)
    settings = ["module.init_args.pass_rate=[0.02,0.05]", "module.init_args.pass_rate_samples=3"]
    assert other.run("gba", "name=hard", *ONLY, *settings) == 0
    train = [e.question_id for e in other_data(other)]
    assert {q for step in seen for q in step} <= set(train[2:6])
    assert asked[0][0] == 3
    assert len(asked[0][1]) == 1  # the DSA expert alone
    assert "4 of" in capsys.readouterr().out
    seen.clear()
    assert other.run("gba", "name=easy", *ONLY, "module.init_args.curriculum=true") == 0
    assert [q for step in seen for q in step] == train[::-1][:6]
    assert other.run("gba", "name=none", *ONLY, "module.init_args.pass_rate=[0.95,0.96]") == 1
    assert "widen module.init_args.pass_rate" in capsys.readouterr().err


def other_data(machine):
    """The training questions of alpha."""
    from configs.load import load
    from experiment.run import assemble

    context = assemble(load(str(machine.files / "gba.yaml"), [f"runs_dir={machine.runs}"]))
    return context.data("alpha").splits["train"]


def test_the_order_of_a_feed_is_kept_epoch_after_epoch(mixed_examples):
    class Made(VQADataModule):
        def examples(self):
            yield from mixed_examples

    data = Made(Made.Config(val_fraction=0.0, test_fraction=0.0))
    names = ("q2", "q0", "q3")
    batches = data.training_batches(Feed("questions", 2, questions=names, in_order=True), 3)
    assert [[e.question_id for e in batch.examples] for batch in batches] == [["q2", "q0"], ["q3", "q2"], ["q0", "q3"]]
    drawn = data.training_batches(Feed("questions", 2, questions=names), 30)
    assert {e.question_id for batch in drawn for e in batch.examples} == set(names)
    with pytest.raises(ValueError, match="'nobody'"):
        data.training_batches(Feed("questions", 1, questions=("nobody",)), 1)
