# Reference: by hand. Run: pytest tests/experiment/test_outlook.py
from types import SimpleNamespace

from experiment.outlook import Outlook, plan


def test_the_time_left_follows_from_the_runs_that_are_done(capsys):
    now = [100.0]
    outlook = Outlook("gba", 4, clock=lambda: now[0])
    outlook.tell(0)
    now[0] += 60
    outlook.tell(1)
    outlook.tell(1)  # nothing is new
    now[0] += 20
    outlook.tell(3)  # two ended together: 80 s for three, one is left
    outlook.tell(4)  # no others are left
    assert capsys.readouterr().out.splitlines() == [
        "gba: 1 of 4 runs done, about 0:03:00 for the others",
        "gba: 3 of 4 runs done, about 0:00:27 for the others",
    ]


def test_a_plan_names_what_is_left_of_every_experiment():
    def member(name, provides, runs, steps):
        return SimpleNamespace(experiment=SimpleNamespace(name=name), provides=provides, runs=runs, steps=steps)

    members = [member("dsa", "expert", ["a", "b"], 160), member("gba", "expert", ["a", "b"], 6)]
    asked = member("exam", "nothing", [], 0)
    asked.lineage = [*members, asked]
    done = {("dsa", "a"), ("dsa", "b"), ("gba", "b")}
    told = plan(asked, lambda one, run: (one.experiment.name, run) in done)
    assert told == "exam: dsa (trained), then gba (1 of 2 runs to train, 6 steps each), then exam (examines)"
