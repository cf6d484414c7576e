"""Reference: every reply scored whole, on its own. Run: pytest tests/answering/test_option_shares.py."""

import pytest

from answering.option_shares import option_shares
from tests.conftest import made_example

HEAD = "<think>heart 62 of 110.</think><answer>"
WRITTEN = f"{HEAD}B</answer>"


def chance(policy, prompt, text):
    """p(text and end | prompt), by one row alone."""
    ids = [*policy.family.text_ids(text), policy.family.eos_token_id]
    return policy.score([prompt], [ids]).logps.double().sum().exp().item()


def test_shares_are_the_chances_of_the_options_forms(tiny_policy):
    example = made_example(0)
    prompt = tiny_policy.prompt(example, "")
    found = option_shares(tiny_policy, prompt, WRITTEN, example.options)
    forms = [("A", "narrow"), ("B", "wide"), ("C", "both")]
    each = [sum(chance(tiny_policy, prompt, f"{HEAD}{form}</answer>") for form in pair) for pair in forms]
    assert found.shares == pytest.approx([p / sum(each) for p in each], rel=1e-3)
    assert sum(found.shares) == pytest.approx(1)
    assert 0 < found.mass < 1
    # the mass is conditional on what all replies begin with, which is itself unlikely here
    assert found.mass > 100 * sum(each)


def test_the_option_that_was_written_is_the_likeliest_where_the_model_is_sure(tiny_policy):
    example = made_example(0)
    prompt = tiny_policy.prompt(example, "")
    wanted = tiny_policy.family.text_ids("C")[0]
    original = tiny_policy.family.logits

    def sure(hidden):
        logits = original(hidden)
        logits[..., wanted] += 30
        return logits

    tiny_policy.family.logits = sure
    assert option_shares(tiny_policy, prompt, WRITTEN, example.options).shares[2] > 0.99


def test_an_option_that_is_called_like_another_s_letter_is_read_as_the_scorer_reads_it(tiny_policy):
    options = ("B", "AB", "A")  # blood groups: a lone letter is a letter, so "A" stands for the first option
    prompt = tiny_policy.prompt(made_example(0), "")
    found = option_shares(tiny_policy, prompt, WRITTEN, options)
    assert sum(found.shares) == pytest.approx(1)
    assert all(share > 0 for share in found.shares)


@pytest.mark.parametrize("text", ["", "B", "<think>cut off", "<think>a</think><answer>B", "<answer>B</answer>"])
def test_where_no_answer_stands_nothing_is_measured(tiny_policy, text):
    prompt = tiny_policy.prompt(made_example(0), "")
    assert option_shares(tiny_policy, prompt, text, ("narrow", "wide")) is None
    assert option_shares(tiny_policy, prompt, WRITTEN, ()) is None
