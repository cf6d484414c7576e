# Reference: the clock. Run: pytest tests/guards/test_telling.py
import sys
import time

from guards.telling import doing, telling


def test_silence_is_filled_with_what_is_being_done_and_with_nothing_else(capsys):
    before = sys.stdout, sys.stderr
    with telling(0.2):
        with doing("gba: merging"):
            time.sleep(0.9)
        spoken = capsys.readouterr()
        with doing("gba: training"):
            for _ in range(20):
                print("step")
                time.sleep(0.03)
            with doing(""):  # others speak
                time.sleep(0.5)
        time.sleep(0.3)  # nothing is named
    lines = spoken.err.splitlines()
    assert 2 <= len(lines) <= 4
    assert all(line.startswith("gba: merging … 0:00:0") for line in lines)
    assert spoken.out == ""
    after = capsys.readouterr()
    assert after.out == "step\n" * 20
    assert "training" not in after.err
    assert (sys.stdout, sys.stderr) == before


def test_a_line_of_the_other_stream_breaks_a_silence_too_and_an_error_ends_it(capsys):
    try:
        with telling(0.3), doing("x"):
            for _ in range(12):
                print("bar", end="\r", file=sys.stderr)
                time.sleep(0.05)
            raise ValueError("the end")
    except ValueError:
        pass
    time.sleep(0.5)
    assert "…" not in capsys.readouterr().err


def test_a_terminal_that_is_closed_ends_nothing(monkeypatch):
    class Closed:
        def write(self, text):
            raise ValueError("I/O operation on closed file")

        def isatty(self):
            return False

        def flush(self):
            pass

    monkeypatch.setattr(sys, "stderr", Closed())
    with telling(0.1), doing("x"):
        time.sleep(0.4)
        assert sys.stderr.isatty() is False
