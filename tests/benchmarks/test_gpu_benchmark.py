# Reference: our own step for the stock one, numbers by hand, and the command itself.
# Run: pytest tests/benchmarks/test_gpu_benchmark.py
import json
import signal
import time
from dataclasses import replace

import pytest
import torch

from benchmarks.gpu import decoding, estimate, launches, made, merging, nf4, plan, stock, suite, training
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.lines import Lines, OutOfTimeError, SkipError, time_limit
from benchmarks.gpu.sizes import SIZES
from benchmarks.gpu.table import markdown
from lightning_modules.packing import ATTENTION

SMALL = replace(SIZES["tiny"], dtype="float32", questions=1, rollouts=1, new_tokens=4, stock_rows=3)


@pytest.mark.parametrize(("size", "billions"), [("3b", 3.75), ("7b", 8.29)])
def test_models_have_the_published_numbers_of_parameters(size, billions):
    family = made.SizedFamily(made.SizedFamily.Config(SIZES[size]), outline=True)
    assert sum(p.numel() for p in family.model.parameters()) / 1e9 == pytest.approx(billions, abs=0.01)
    picture = made.questions(SIZES[size], 1)[0].images[0]
    assert family.to_input.tokens(*picture.size) == 1024


def test_the_stock_loop_takes_the_same_step_by_its_own_means(monkeypatch):
    policy = made.policy_of(SMALL, "cpu")
    banned = policy.banned.tolist()
    measured, ours = training.gba(policy, SMALL, "cpu")
    assert {len(completion.ids) for completion in ours.rollouts.completions} == {4}
    assert measured["group"] == 4  # one rollout under each of four guidelines
    assert set(measured["phases"]) >= {"rollout", "scoring", "backward", "optimizer"}
    piece = estimate.piece_of(ours.rollouts, 512)
    assert (piece["prompts"], piece["rows"], piece["scored"]) == (1, 4, 4)
    packed = ours.rollouts.packed_tokens(range(4), False)
    assert piece["prompt"] + 4 * piece["row"] == pytest.approx(packed, abs=4)
    used = []
    monkeypatch.setattr("lightning_modules.adapters._lora_forward", lambda *_: used.append("our layer"))
    monkeypatch.setattr("lightning_modules.packing.Packing.attend", lambda *_: used.append("our attention"))
    found = stock.step(policy, SMALL, "cpu", ours)
    assert used == []
    assert found["gradient_cosine"] > 0.99999
    assert found["gradient_norm_ratio"] == pytest.approx(1, abs=1e-4)
    assert policy.family.model.config.text_config._attn_implementation == ATTENTION
    assert policy.banned.tolist() == banned
    assert policy.adapters == ()


def test_sft_s_loss_is_finite_and_that_of_checkpointed_layers():
    policy = made.policy_of(SMALL, "cpu")
    few = replace(SMALL, sft_rows=2)
    plain, again = (training.sft(policy, few, "cpu", checkpoint=flag) for flag in (False, True))
    assert 0 < plain["loss"] == again["loss"] < 20
    assert plain["repeats"] == 1
    assert plain["micro_batch"]["rows"] == 2


def test_an_estimate_needs_the_module_that_makes_it(monkeypatch):
    monkeypatch.setattr(estimate.util, "find_spec", lambda name: None)
    with pytest.raises(SkipError, match=r"has no lightning_modules\.memory\.estimate"):
        estimate.beside_measured(SMALL, {}, "cpu")


@pytest.fixture
def lines(tmp_path):
    return Lines(tmp_path / "made" / "lines.jsonl", 100, "cpu", commit="abc")


def written(lines):
    return [json.loads(line) for line in open(lines._file.name)]


def failing(error):
    def work():
        raise error

    return work


def test_what_goes_wrong_is_a_line_and_the_rest_goes_on(lines, capsys):
    assert not lines.measure("a", "tiny", 10, failing(torch.OutOfMemoryError("CUDA out of memory. Tried to")))
    assert not lines.measure("b", "tiny", 10, failing(SkipError("no wheel")))
    assert not lines.failed
    assert not lines.measure("c", "tiny", 0.05, lambda: time.sleep(5))
    assert not lines.failed
    assert not lines.measure("d", "tiny", 10, failing(ValueError("broken")))
    assert lines.failed
    assert lines.measure("e", "tiny", 10, lambda: {"seconds": 0.5, "repeats": 3})
    assert not lines.measure("f", "tiny", 1000, lambda: {})  # of which half is not left
    found = written(lines)  # before the file is closed
    assert [line["repeats"] for line in found] == [0, 0, 0, 0, 3, 0]
    assert found[0]["failed"] == "out of memory: CUDA out of memory"
    assert found[1]["skipped"] == "no wheel"
    assert found[2]["failed"].startswith("out of time")
    assert found[3]["failed"] == "ValueError: broken"
    assert "of 100 are left, and it may take 1000" in found[5]["skipped"]
    wanted = {"card", "torch", "transformers", "commit", "size", "peak_gib", "seconds", "repeats", "part"}
    assert all(wanted <= set(line) for line in found)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == found
    told = markdown(lines.written)
    assert "- c, tiny: out of time" in told
    assert "- b, tiny: no wheel" in told


def test_a_limit_holds_once_and_leaves_nothing_behind():
    with pytest.raises(OutOfTimeError), time_limit(0.02):
        time.sleep(2)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    with time_limit(5):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize("code", [0, 1, 2])
def test_failing_tests_of_a_card_end_the_command_with_one(tmp_path, monkeypatch, code):
    monkeypatch.setattr(suite, "gpu_tests", lambda seconds: {"seconds": 1.0, "exit_code": code})
    lines = Lines(tmp_path / "lines.jsonl", 60, "cpu")
    plan.gpu_tests(lines, "cuda")
    assert lines.failed == (code != 0)


def test_events_per_token_by_hand():
    # 4 further tokens: 8 launches, 1 of them by the other interface; 4 waits; 20 operators
    short = {"cudaLaunchKernel": 10, "aten::mm": 5, "cudaStreamSynchronize": 1, "Activity Buffer Request": 1}
    long = {"cudaLaunchKernel": 17, "cuLaunchKernel": 1, "aten::mm": 25, "cudaStreamSynchronize": 5, "cudaMalloc": 9}
    found = launches.per_token(short, long, 4)
    assert found == {"operators": 5.0, "kernels": 2.0, "graphs": 0.0, "copies": 0.0, "waits": 1.0}
    counted = launches.events_of(lambda: torch.ones(2, 2) @ torch.ones(2, 2))
    assert counted["aten::mm"] == 1


def test_tests_of_a_folder_are_run_counted_and_ended(tmp_path):
    (tmp_path / "test_a.py").write_text(
        "import pytest\n@pytest.mark.gpu\ndef test_x(): pass\n@pytest.mark.gpu\ndef test_y(): assert 0\ndef test_z(): 0"
    )
    found = suite.gpu_tests(60, tmp_path)
    assert (found["passed"], found["failed"], found["deselected"], found["exit_code"]) == (1, 1, 1, 1)
    assert "assert 0" in found["end_of_output"]
    with pytest.raises(OutOfTimeError):
        suite.gpu_tests(0.1, tmp_path)


def test_without_its_packer_nf4_is_left_out(monkeypatch):
    monkeypatch.setattr(nf4.util, "find_spec", lambda name: None)
    with pytest.raises(SkipError, match="carry its wheel"):
        nf4.packer()


def test_without_time_every_part_is_a_line_that_says_so(tmp_path, capsys):
    assert main(["--sizes", "tiny", "--out", str(tmp_path), "--device", "cpu", "--seconds", "0.01"]) == 0
    found = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    parts = [
        "load",
        "sft",
        "sft checkpointed",
        "gba",
        "stock",
        "decode",
        "decode",
        "decode",
        "estimate",
        "nf4 sft checkpointed",
    ]
    assert [line["part"] for line in found] == [*parts, "merge", "merge", "tests"]
    assert all(line["skipped"].startswith("no time: ") for line in found)


@pytest.mark.parametrize("sizes", ["8b", "tiny,8b", "7b"])
def test_sizes_that_are_unknown_or_need_a_card_are_refused(sizes, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        main(["--sizes", sizes, "--out", str(tmp_path)])
    assert "tiny" in capsys.readouterr().err


@pytest.mark.gpu
def test_on_a_card_steps_agree_launches_are_counted_and_merges_are_those_of_the_processor():
    policy = made.policy_of(SMALL, "cuda")
    _, ours = training.gba(policy, SMALL, "cuda")
    assert stock.step(policy, SMALL, "cuda", ours)["gradient_cosine"] > 0.9999
    counts = decoding.decode(policy, SMALL, "cuda", 2)["per_token"]
    assert counts["kernels"] + counts["graphs"] > 0
    for method in merging.METHODS:
        assert merging.beside_the_processor(SMALL, "cuda", method)["largest_difference"] < 1e-4


@pytest.mark.slow
def test_the_rehearsal_measures_everything(tmp_path):
    assert main(["--sizes", "tiny", "--out", str(tmp_path), "--device", "cpu", "--seconds", "900"]) == 0
    found = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    missed = {line["part"] for line in found if not line["repeats"]}
    assert missed <= {"estimate", "nf4 sft checkpointed", "tests"}
    assert not any("failed" in line for line in found)
    step = next(line for line in found if line["part"] == "stock")
    assert step["gradient_cosine"] > 0.999  # bf16
    decoded = [line for line in found if line["part"] == "decode"]
    assert [line["rows"] for line in decoded] == [1, 2, 4]
    assert all(line["per_token"]["operators"] > 0 for line in decoded)
    moved = [line["bytes_per_step"] for line in decoded]
    assert len({one["weights"] for one in moved}) == 1  # read once for all rows
    assert [one["logits"] // moved[0]["logits"] for one in moved] == [1, 2, 4]
    assert "| cache, MB |" in (tmp_path / "table.md").read_text()
    table = (tmp_path / "table.md").read_text()
    assert "| gba | tiny |" in table
    assert "| tiny | ties |" in table
