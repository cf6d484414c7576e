# Two experts on a tiny random base, and the callback that merges them.
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from artifacts.adapter_files import base_fingerprint, is_complete, write_adapter
from artifacts.folders import ExperimentFolder
from callbacks.merge_experts import MergeExperts
from experiment.launchers.part import WHOLE
from lightning_modules.adapters import LoRASettings
from tests.conftest import made_example, randomise_adapter
from tests.merge.conftest import READS

SPECIALTIES = ("alpha", "beta")


@dataclass
class Data:
    """What the merge asks of a DataModule."""

    splits: dict
    config: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(answer_with="letter"))
    memory: Path | None = None


@dataclass
class Made:
    """What the merge asks of an experiment: two experts on a tiny random base."""

    folder: ExperimentFolder
    tiny: object
    fingerprint: str
    loads: int = 0

    specialties = SPECIALTIES
    part = WHOLE
    experiment = SimpleNamespace(name="made", trainer={"accelerator": "cpu"}, runs_dir="runs")

    def is_complete(self):
        return all(is_complete(self.folder.run(s).adapter) for s in SPECIALTIES)

    def expert_chain(self, specialty):
        return [("dsa", self.folder.run(specialty).adapter)]

    def data(self, specialty):
        first = 10 * SPECIALTIES.index(specialty)
        examples = [made_example(first + i, words=i % 3) for i in range(6)]
        return Data({"train": examples[:3], "val": examples[3:5], "test": examples[5:]})

    def policy(self):
        self.loads += 1
        return self.tiny, self.fingerprint


@pytest.fixture
def made(tiny_policy, tmp_path):
    fingerprint = base_fingerprint(tiny_policy.family.named_parameters())
    experiment = Made(ExperimentFolder(tmp_path / "made"), tiny_policy, fingerprint)
    for seed, specialty in enumerate(SPECIALTIES):
        tiny_policy.add_adapter("dsa", LoRASettings(rank=2 + seed, alpha=4.0))
        randomise_adapter(tiny_policy, "dsa", seed=seed)
        config, tensors = tiny_policy.adapter_state("dsa")
        tiny_policy.remove_adapter("dsa")
        manifest = {"kind": "dsa", "base_fingerprint": fingerprint, "specialty": specialty, "extra": READS}
        write_adapter(experiment.folder.run(specialty).adapter, config, tensors, manifest)
    return experiment


def callback(made, **options):
    quick = {"max_new_tokens": 6, "auto_n": 2, "pictures": False}
    return MergeExperts(MergeExperts.Config(**quick | options), experiment=made)
