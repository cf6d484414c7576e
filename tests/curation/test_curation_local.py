# Reference: the same questions asked one by one, and a base trained here until its answers are well-formed.
# Run: pytest tests/curation/test_curation_local.py
import json
import sys
from dataclasses import replace

import pytest
import yaml

import train
from curation.__main__ import main
from curation.local import LocalModel
from curation.teachers import Request
from datamodules.check.__main__ import main as check
from datamodules.mmedexpert import MMedExpert
from endpoints.answerer import UnusableError
from tests.experiment.conftest import SOURCE, experiments, write_bars

RULES = "tag_points: 1\nspecialties: {oncology_surgery: {describes: Bars, phrases: [bar]}}\n"


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """Two experiment files over made pictures of bars, the base of the first one trained."""
    folder = tmp_path_factory.mktemp("local")
    (folder / "made_bars.py").write_text(SOURCE)
    sys.path.insert(0, str(folder))
    for name in ("alpha", "beta"):
        write_bars(folder / "data" / name, name[0])
    for name, content in experiments(folder).items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**content, "runs_dir": str(folder / "runs")}))
    (folder / "rules.yaml").write_text(RULES)
    try:
        assert train.main(["--config", str(folder / "base.yaml")]) == 0
        yield folder
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("made_bars", None)


def model(machine, **options):
    return LocalModel(LocalModel.Config(config=str(machine / "dsa.yaml"), max_new_tokens=24, **options))


def asked(machine, draws=3):
    import made_bars

    data = made_bars.Bars(made_bars.Bars.Config(root=str(machine / "data" / "alpha"), val_fraction=0.2))
    return [
        Request(e.question_id, e, (e.question_id,), "", draw) for e in data.splits["train"][:3] for draw in range(draws)
    ]


def texts(one, requests):
    heard = {}
    one.answer(requests, lambda item: heard.__setitem__((item.request.row, item.request.draw), item.body) is None)
    return heard


def test_a_reply_depends_on_its_request_alone(machine):
    requests = asked(machine)
    together = texts(model(machine), requests)
    assert len(set(together.values())) > 3  # draws differ
    one = model(machine, rows_at_once=1)
    assert texts(one, requests[::-1]) == together
    (fifth,) = texts(one, requests[4:5]).values()
    assert fifth == together[requests[4].row, requests[4].draw]


def test_keys_tell_models_prompts_pictures_and_draws_apart(machine):
    one, request = model(machine), asked(machine, draws=1)[0]
    variants = [
        request,
        replace(request, draw=1),
        replace(request, instruction="reason by differential."),
        replace(request, pictures=("another",)),
    ]
    keys = [one.key(variant) for variant in variants] + [model(machine, temperature=0.5).key(request)]
    assert len(set(keys)) == len(keys)
    assert one.key(replace(request, row="another name")) == one.key(request)
    assert model(machine, rows_at_once=3).key(request) == one.key(request)


def test_a_base_that_is_not_trained_is_told_before_anything_is_asked(machine, tmp_path):
    one = model(machine, overrides=(f"runs_dir={tmp_path}",))
    with pytest.raises(UnusableError, match="no trained base"):
        _ = one.identity
    with pytest.raises(UnusableError, match="no finished adapter"):
        _ = model(machine, adapters=(str(tmp_path),)).identity


def test_from_pool_to_a_set_with_a_local_teacher(machine, tmp_path):
    local = {"class_path": "curation.local.LocalModel"}
    options = {"config": str(machine / "dsa.yaml"), "max_new_tokens": 24}
    bars = {"class_path": "made_bars.Bars", "init_args": {"root": str(machine / "data" / "alpha"), "val_fraction": 0.2}}
    content = {
        "trust": ["made_bars"],
        "pools": {"bars": {"data": bars, "source": "made bars", "licence": "made here"}},
        "rules": str(machine / "rules.yaml"),
        "teacher": {**local, "init_args": {**options, "temperature": 0.5}},
        "base": {**local, "init_args": {**options, "temperature": 1.0}},
        "samples": 4,
        "pass_rate": [0.0, 1.0],
        "guidelines": ["differential", "bayesian"],
        "draws": 3,
        "min_adherence": 0.0,
        "out": str(tmp_path / "set"),
    }
    (tmp_path / "bars.yaml").write_text(yaml.safe_dump(content))
    command = ["run", "--config", str(tmp_path / "bars.yaml")]
    assert main(command) == 0
    first = {p: p.read_bytes() for p in sorted((tmp_path / "set").rglob("*")) if p.is_file()}
    replies = sorted((tmp_path / "set.replies").rglob("*.json"))
    for path in replies[::3]:  # as if it had been killed: a third of the replies is not there
        path.unlink()
    assert main(command) == 0
    assert {p: p.read_bytes() for p in sorted((tmp_path / "set").rglob("*")) if p.is_file()} == first
    counts = json.loads((tmp_path / "set" / "counts.json").read_text())
    assert 0 < counts["kept"]["oncology_surgery"] < counts["gates"]["usable"]["in"]
    assert counts["traces"]["bayesian"]["rejected"]["wrong_answer"] > 0
    data = MMedExpert(MMedExpert.Config(root=str(tmp_path / "set" / "data")))
    examples = [example for split in data.splits.values() for example in split]
    assert len(examples) == counts["kept"]["oncology_surgery"]
    for example in examples:
        assert all(example.answer in reasoning for reasoning in example.reasoning.values())
    assert check(["datamodules.mmedexpert.MMedExpert", f"root={tmp_path / 'set' / 'data'}"]) == 0
