# Reference: the work's definition, exact to the token, and a result made by hand. Run: pytest tests/benchmarks
import dataclasses
import json

import pytest
import torch

from benchmarks import driver, made_model, made_rows, ours, ours_rl, work
from benchmarks.clock import Recorder
from benchmarks.report import markdown
from datamodules.prompts import prompt_text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Holds the tokenizer, so that it is trained once."""
    made = tmp_path_factory.mktemp("work")
    made_model.tokenizer("5m", made)
    return made


@pytest.fixture(scope="module")
def tokens(folder):
    return made_model.tokenizer("5m", folder)


@pytest.fixture(scope="module")
def family(folder):
    return ours.MadeFamily(ours.MadeFamily.Config("5m", str(folder)), Recorder())


def test_our_family_and_the_chat_template_write_the_same_prompt(tokens, family):
    for index, row in enumerate(made_rows.rows(tokens, [(200, 0), (120, 16), (240, 128)])):
        example = ours.example(index, row)
        assert prompt_text(example, "") == row.text
        framed = tokens(made_rows.chat_text(tokens, row))["input_ids"]
        place = framed.index(family.image_token_id)
        expanded = [*framed[:place], *[family.image_token_id] * 64, *framed[place + 1 :]]
        assert family.prompt_ids(prompt_text(example, ""), [64]) == expanded
        assert family.preprocess(row.image).n_tokens == 64


def test_prompts_and_answers_have_exactly_the_tokens_asked_for(tokens, family):
    lengths = [(200, 64), (120, 16), (240, 128), (199, 17)]
    for (prompt, answer), row in zip(lengths, made_rows.rows(tokens, lengths), strict=True):
        assert len(family.prompt_ids(row.text, [64])) == prompt
        assert len(tokens(row.answer)["input_ids"]) + 1 == answer  # and the end token
    with pytest.raises(ValueError, match="no text of 60 tokens"):
        made_rows.rows(tokens, [(60, 0)])  # the picture alone has 64


def test_the_work_is_a_function_of_its_seed(tokens, folder, tmp_path):
    first, again = (made_rows.rows(tokens, [(200, 64)] * 2, seed=seed) for seed in (4, 4))
    assert [row.text for row in first] == [row.text for row in again]
    assert first[0].image.tobytes() == again[0].image.tobytes() != first[1].image.tobytes()
    assert made_rows.rows(tokens, [(200, 64)], seed=5)[0].text != first[0].text
    again = made_model.tokenizer("5m", tmp_path)
    assert again.get_vocab() == tokens.get_vocab()
    assert len(tokens) == made_model.SIZES["5m"].vocabulary == 4096
    left, right = (made_model.model("5m", tokens).state_dict() for _ in range(2))
    assert all(torch.equal(tensor, right[name]) for name, tensor in left.items())


def test_lengths_cover_8_to_64_and_depend_on_the_step_alone():
    drawn = [length for step in range(200) for length in work.completion_lengths(step, 32)]
    assert (min(drawn), max(drawn)) == (8, 64)
    assert sum(drawn) / len(drawn) == pytest.approx(36, abs=1)
    assert work.completion_lengths(3, 32) == work.completion_lengths(3, 32) != work.completion_lengths(4, 32)


def test_rewards_by_hand():
    # of 2, 3, 4, 9 two are even; below 10 / 2 are 2, 3 and 4
    assert work.reward_even([2, 3, 4, 9]) == 0.5
    assert work.reward_low([2, 3, 4, 9], vocabulary=10) == 0.75
    assert ours_rl.total_reward((2, 3, 4, 9), 10) == 0.5 + 0.5 * 0.75
    assert [work.is_dead("dead", question) for question in range(4)] == [False, True, False, True]
    assert not any(work.is_dead("fixed", question) for question in range(4))


def test_our_worker_does_the_whole_step_and_counts_it(folder):
    # 4 questions x 2 completions x 3 tokens in each of 2 steps
    settings = dataclasses.replace(ours_rl.config("fixed", 2), max_new_tokens=3)
    result = ours_rl.measure("5m", "fixed", 1, folder, settings=settings)
    counts = result["counts"]
    assert counts["images_preprocessed"] == counts["images_encoded"] == 4
    assert counts["lm_head_rows"] >= 4 * 2 * 3
    assert [step["completion_tokens"] for step in result["per_step"]] == [3.0, 3.0]  # the end token is banned
    assert result["per_step"][0]["kl"] == 0.0 < result["per_step"][1]["kl"]
    assert {"rollout", "reward", "reference", "forward", "backward", "optimizer", "other"} == set(result["phases"])
    assert sum(result["phases"].values()) == pytest.approx(result["cpu_s"])


def made_repeat(cpu_s, mib):
    """A worker's result with easy numbers."""
    return {
        "cpu_s": cpu_s,
        "wall_s": cpu_s,
        "peak_added_mib": mib,
        "phases": {"rollout": cpu_s / 2},
        "counts": {"images_encoded": 4},
        "per_step": [{"cpu_s": 9.0, "wall_s": 9.0, "kl": 7.0}, {"cpu_s": cpu_s, "wall_s": cpu_s, "kl": 0.5}],
        "versions": {"torch": "1"},
    }


def test_result_by_hand(tmp_path):
    # medians of (1, 2, 9) and (4, 4, 4) CPU seconds: 2 / 4; memory 100 / 400
    repeats = {
        "ours": [made_repeat(1.0, 100), made_repeat(9.0, 100), made_repeat(2.0, 100)],
        "peer": [made_repeat(4.0, 400)] * 3,
    }
    fixed = {"ours": {"loss": 1.5, "grad_norm": 2.0}, "peer": {"loss": 1.0, "grad_norm": 2.0}}
    result = driver.beside(repeats, fixed)
    assert (result["ratio_cpu"], result["ratio_memory"]) == (0.5, 0.25)
    assert result["fixed_batch"]["difference"] == {"loss": 0.5, "grad_norm": 0.0}
    assert result["ours"]["values"] == {"kl": 0.5}  # the warm-up's 7 does not count
    chosen = driver.arguments("", work.RL_WORKS, ["--size", "5m", "--out", str(tmp_path / "results")])
    path = driver.write(result, chosen, "rl_vs_trl")
    assert path == tmp_path / "results" / "rl_vs_trl_5m_fixed.json"
    assert json.loads(path.read_text())["repeats"]["ours"][1]["cpu_s"] == 9.0
    table = path.with_suffix(".md").read_text()
    assert "| CPU seconds | 2.000 | 4.000 | 0.500 |" in table
    assert "| fixed batch: loss | 1.5 | 1 | difference 5.0e-01 |" in table


def test_growth_table_by_hand():
    side = {"counts": {"lm_tokens": 10}, "peak_added_mib": 5.0}
    ours_by_group = {"4": side | {"cpu_s": 1.0}, "8": side | {"cpu_s": 1.5}, "16": side | {"cpu_s": 3.0}}
    result = {"benchmark": "rl_vs_trl", "size": "5m", "work": "growth", "ours": ours_by_group, "versions": {}}
    assert "| CPU seconds | 1.000 | 1.500 | 3.000 | 3.000 |" in markdown(result)


def test_a_missing_peer_is_told_with_the_remedy(tmp_path):
    with pytest.raises(SystemExit, match=r"\.venv-bench/bin/pip install -r requirements-bench\.txt"):
        driver.check_peer(tmp_path / "python")


@pytest.mark.parametrize("bad", [["--steps", "8"], ["--steps", "0"], ["--repeats", "0"], ["--work", "mixed"]])
def test_bad_arguments_are_refused(bad, tmp_path):
    with pytest.raises(SystemExit):
        driver.arguments("", work.RL_WORKS, ["--size", "5m", "--out", str(tmp_path), *bad])


def test_forced_lengths_by_hand():
    # rows 0 and 2 are still written, of lengths 2 and 3; one token stands: row 0 must end, row 2 must not
    log_probs = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]).log()
    forced = ours_rl.forced_lengths([2, 1, 3], end=0)(log_probs, [0, 2], 1).exp()
    torch.testing.assert_close(forced, torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]))
