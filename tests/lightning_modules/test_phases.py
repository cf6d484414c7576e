# Run: pytest <this file>
import pytest

from lightning_modules import phases
from lightning_modules.phases import PhaseClock


@pytest.fixture
def clock(monkeypatch):
    """A clock whose time is set by hand: `clock.now`, wall and processor alike."""
    made = PhaseClock()
    made.now = 0.0
    monkeypatch.setattr(phases.time, "perf_counter", lambda: made.now)
    monkeypatch.setattr(phases.time, "process_time", lambda: made.now / 2)
    return made


def test_time_counts_for_the_innermost_phase(clock):
    with clock.phase("optimizer"):
        clock.now += 1
        with clock.phase("forward"):
            clock.now += 4
        clock.now += 2
    clock.now += 100
    assert clock.wall == {"optimizer": 3, "forward": 4}
    assert clock.cpu == {"optimizer": 1.5, "forward": 2}


def test_a_phase_that_fails_is_closed(clock):
    def fail():
        with clock.phase("forward"):
            clock.now += 1
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        fail()
    clock.now += 5
    assert clock.wall == {"forward": 1}


def test_steps_report_means_and_the_end_reports_sums(clock):
    for _ in range(2):
        with clock.phase("rollout"):
            clock.now += 3
        clock.count("rollout_tokens", 30)
    first = clock.take(steps=2)
    assert first["time/rollout_s"] == 3
    assert first["speed/rollout_tokens_per_s"] == 10
    assert first["memory/peak_mib"] > 1
    with clock.phase("forward"):
        clock.now += 1
    assert "time/rollout_s" not in clock.take()
    assert clock.summary()["time/rollout_s"] == 6
    assert "speed/train_tokens_per_s" not in clock.summary()
