# Reference: times by hand. Run: pytest tests/callbacks/test_countdown.py
import io
import sys

import pytest

from answering import countdown as progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_now_and_then_and_found_work_says_nothing_about_the_pace(clock, capsys):
    countdown = progress.Countdown("evaluate", 100, "answers", seconds=15)
    countdown.advance(40, found=True)
    clock[0] = 10.0
    countdown.advance(5)  # too soon for a line
    assert capsys.readouterr().out == ""
    clock[0] = 20.0
    countdown.advance(5)
    # 10 answers in 20 s, 50 to go: 100 s
    assert capsys.readouterr().out == "evaluate  50/100 answers  0:01:40 left\n"
    countdown.say("a cell is done")
    countdown.close()
    assert capsys.readouterr().out == "a cell is done\n"


def test_a_person_gets_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    countdown = progress.Countdown("evaluate", 4, "answers")
    countdown.advance(3)
    countdown.bar.refresh()
    countdown.close()
    assert "evaluate:  75%" in sys.stderr.getvalue()
    assert "3/4" in sys.stderr.getvalue()
