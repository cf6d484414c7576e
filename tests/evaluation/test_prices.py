"""Reference: sums by hand. Run: pytest tests/evaluation/test_prices.py."""

import json
from dataclasses import replace

import pytest

from evaluation.predictions import Prediction
from evaluation.prices import FILE, cost_rows, read_prices
from evaluation.tables import report

ANSWER = Prediction("gpt", "skin", "q0", "p0", "neutral", ("wide", "narrow"), "A", "<answer>A</answer>", n_tokens=10)


def asked(number, **changes):
    return replace(ANSWER, question_id=f"q{number}", patient_id=f"p{number}", prompt_tokens=1000, **changes)


def test_money_and_tokens_by_hand():
    answers = [asked(0), asked(1, completion="", fault="refused"), asked(2, n_tokens=80), replace(ANSWER, model="base")]
    # 3000 tokens of prompts at 2 and 100 of answers at 20 per million: 0.006 + 0.002
    prices = {"gpt": {"prompt": 2.0, "completion": 20.0}}
    assert cost_rows(answers, prices) == [["gpt", "3", "refused 1", "3000", "100", "0.0080"]]
    assert cost_rows(answers, {})[0][-1] == "no price"
    assert "## Cost" in report(answers[:3], [], [], {}, (), prices)
    assert "## Cost" not in report(answers[3:], [], [], {}, (), prices)


def test_a_sum_alone_costs_the_dearer_price():
    # 1000 tokens of which nobody knows how many were the answer's, beside 1000 + 10 that are told apart
    answers = [asked(0, n_tokens=0), asked(1)]
    for prompt, completion, money in ((2.0, 20.0, 0.0222), (20.0, 2.0, 0.04002)):
        prices = {"gpt": {"prompt": prompt, "completion": completion}}
        assert cost_rows(answers, prices)[0][3:] == ["2000", "10", f"{money:.4f}"]


def test_an_answer_is_read_back_with_its_tokens_and_its_fault():
    answer = asked(0, completion="", fault="filtered")
    assert Prediction.from_json(answer.to_json()) == answer
    assert not {"prompt_tokens", "fault"} & json.loads(ANSWER.to_json()).keys()


@pytest.mark.parametrize("text", ["[]", "{", '{"gpt": 2}', '{"gpt": {"prompt": -1, "completion": 0}}'])
def test_prices_that_are_none_are_refused(tmp_path, text):
    assert read_prices(tmp_path) == {}
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ValueError, match=FILE):
        read_prices(tmp_path)
