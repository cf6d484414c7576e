"""Short forms of the campaigns, a few minutes each; docs/reliability.md has the counts of full ones.

Run: pytest -m slow tests/campaigns/test_campaigns.py. The quick tests hold what the campaigns judge by.
"""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from tests.campaigns.leavings import differences, torn
from tests.campaigns.memory import BLOCKS, growths
from tests.campaigns.tally import ROOT, Tally, arguments, write_section

SHORT = {"kills": 6, "configs": 60, "data": 60, "adapters": 24, "memory": 150}


@pytest.mark.slow
@pytest.mark.parametrize(("campaign", "count"), SHORT.items(), ids=list(SHORT))
def test_a_short_form_finds_nothing(campaign, count):
    command = [sys.executable, "-m", f"tests.campaigns.{campaign}", "--count", str(count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def left(folder, *, value=0.5, steps=(0, 1), text='{"a": 1}'):
    """A folder such as a command leaves, with a board."""
    (folder / "run").mkdir(parents=True)
    (folder / "run" / "scores.json").write_text(text)
    (folder / "run" / "status.json").write_text(
        json.dumps({"state": "finished", "time": str(folder), "pid": id(folder)})
    )
    with SummaryWriter(str(folder / "run")) as writer:
        for step in steps:
            writer.add_scalar("train/loss", value, step)
            writer.add_scalar("work/time/step_s", hash(str(folder)) % 100, step)
    return folder


def test_only_what_tells_of_the_process_may_differ(tmp_path):
    assert list(differences(left(tmp_path / "a"), left(tmp_path / "b"))) == []


def test_every_kind_of_difference_is_seen_and_named(tmp_path):
    reference = left(tmp_path / "reference")
    changes = {
        "another number": ({"text": '{"a": 2}'}, "different", "run/scores.json differs"),
        "a point lost": ({"steps": (0,)}, "silent losses", "2 points are missing"),
        "a point twice": ({"steps": (0, 1, 1)}, "different", "2 points too many"),
        "another point": ({"value": 0.25}, "different", "2 points too many"),
    }
    for name, (change, column, said) in changes.items():
        found = list(differences(reference, left(tmp_path / name, **change)))
        assert (column, said) in [(column, text.split("; ")[0].split(": ")[-1].split(",")[0]) for column, text in found]
    other = left(tmp_path / "files")
    (other / "run" / ".last.ckpt.12.tmp").write_text("x")
    (other / "run" / "scores.json").unlink()
    assert set(differences(reference, other)) == {
        ("silent losses", "run/scores.json is missing"),
        ("different", "run/.last.ckpt.12.tmp is left over"),
    }


def test_a_file_that_was_cut_off_is_torn_and_a_temporary_one_is_not(tmp_path):
    folder = left(tmp_path / "a")
    assert list(torn(folder)) == []
    shutil.copy(folder / "run" / "scores.json", folder / "run" / ".scores.json.7.tmp")
    (folder / "run" / ".scores.json.7.tmp").write_text('{"a"')
    assert list(torn(folder)) == []
    (folder / "run" / "scores.json").write_text('{"a"')
    assert [column for column, _ in torn(folder)] == ["torn"]


def test_growth_is_told_from_noise():
    # three measures over 400 steps: level with noise of 50 KiB; two objects more at every step; bytes that fall
    draw, steps = np.random.default_rng(0), np.arange(0, 400, 5.0)
    noise = 500_000 + 50 * draw.standard_normal(len(steps))
    found = growths(np.column_stack([steps, noise, 1000 + 2 * steps, 9e6 - 300 * steps]))
    assert [growth.grows for growth in found] == [False, True, False]
    assert found[1].slope == pytest.approx(2)
    assert len(steps) // 4 * 3 >= BLOCKS


def test_a_section_is_replaced_in_place_and_the_rest_of_the_page_stays(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Reliability\n\nwords\n")
    write_section(page, "kills", "first")
    write_section(page, "data", "other")
    write_section(page, "kills", "second \\1")
    text = page.read_text()
    assert "first" not in text
    assert text.count("second \\1") == text.count("other") == text.count("words") == 1


def test_bad_cases_are_counted_once_per_column_and_make_the_campaign_fail(capsys):
    tally = Tally("kills", "kills", arguments("", 3, []))
    tally.add("RL", 7, [("torn", "a"), ("torn", "b"), ("hangs", "c")], cases=2)
    tally.add("SFT", 8)
    assert tally.rows == [["RL", "2", "1", "0", "0", "1", "0", "0"], ["SFT", "1", *"000000"], ["all", "3", *"100100"]]
    assert tally.end(None) == 1
    assert "seed 7 (RL): hangs: c" in capsys.readouterr().out
