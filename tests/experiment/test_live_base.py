"""Reference: weak references to every model that is built, counted at the moment when the next one is.

Run: pytest tests/experiment/test_live_base.py.
"""

import gc
import weakref

import pytest

from answering.live_base import LiveBase
from experiment.context import ExperimentContext
from experiment.live_model import live_model, merge_answers
from lightning_modules.families.qwen2_5_vl import Qwen2_5_VL
from lightning_modules.policy import Policy

FEW = {"mean": {"class_path": "merge.methods.mean.Mean"}, "regmean": {"class_path": "merge.methods.regmean.RegMean"}}


@pytest.fixture
def built(monkeypatch):
    """Every family that is built with weights, and how many of them were alive at that moment; nothing is collected."""
    families, alive = [], []
    original = Qwen2_5_VL.__init__

    def counted(self, *args, outline=False, **kwargs):
        if not outline:
            alive.append(sum(family() is not None for family in families))
            families.append(weakref.ref(self))
        original(self, *args, outline=outline, **kwargs)

    monkeypatch.setattr(Qwen2_5_VL, "__init__", counted)
    gc.collect()
    gc.disable()  # a collection that happens to come would hide what holds on
    yield families, alive
    gc.enable()


def test_a_whole_lineage_holds_one_model_at_a_time(machine, tmp_path, built):
    families, alive = built
    merge = machine.merge(tmp_path / "files", presets=["regmean"], auto=True, auto_n=2, auto_candidates=FEW, gate_n=2)
    assert merge.at(tmp_path / "runs").run("gba", "workers=1") == 0
    asked = [path.name for path in (tmp_path / "runs/gba/merged").iterdir()]
    assert {"ties", "regmean", "auto"} <= set(asked)
    assert (tmp_path / "runs/gba/evaluation/matrix.csv").exists()
    # one is trained from scratch and let go; on its weights one serves dsa, gba, gates, auto, Gram matrices and matrix
    assert alive == [0, 0]
    assert families[0]() is None


def test_the_base_of_a_base_training_is_let_go_when_its_run_ends(machine, tmp_path, built, monkeypatch):
    families, alive = built
    held = []
    original = ExperimentContext.policy
    monkeypatch.setattr(
        ExperimentContext, "policy", lambda self, **how: held.append(self.live) or original(self, **how)
    )
    assert machine.at(tmp_path / "runs").run("base", "trainer.max_steps=2") == 0
    assert (len(held), alive) == (1, [0])  # the experiment's live base is alive still, what it held is not
    assert families[0]() is None


def test_a_base_is_let_go_before_another_one_is_read(tiny_policy):
    live, seen = LiveBase(), []

    def load():
        seen.append(first() if seen else None)
        return Policy(tiny_policy.family), f"fingerprint {len(seen)}"

    policy, fingerprint = live.of("a", load)
    first = weakref.ref(policy)
    policy.circle = [policy]  # as a Trainer and its module hold each other
    assert live.of("a", load) == (policy, fingerprint)
    del policy
    assert live.of("b", load)[1] == "fingerprint 2"
    assert seen == [None, None]


def test_all_that_asks_from_the_command_line_shares_a_base(lineage, built, monkeypatch):
    monkeypatch.setattr("experiment.live_model.LIVE", LiveBase())  # other tests may have asked before
    families, alive = built
    files = [str(lineage.files / f"{name}.yaml") for name in ("dsa", "gba")]
    runs = [f"runs_dir={lineage.runs}"]
    teacher, merges = live_model(files[0], runs), merge_answers(files[1], runs)
    with teacher.acting([lineage.runs / "dsa/alpha/adapter"]) as policy:
        assert policy.active == ()  # folded
    del policy
    assert merges.model.fingerprint == teacher.fingerprint
    assert alive == [0]
    with live_model(files[0], [*runs, "model.init_args.init_seed=5", "requires=[]"]).acting([]):
        assert alive == [0, 0]
    assert families[0]() is None
