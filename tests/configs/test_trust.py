"""Reference: Python's record of what is imported and run (audit events).

Run: pytest tests/configs/test_trust.py.
"""

import importlib
import json
import subprocess
import sys
import textwrap
from dataclasses import MISSING, fields
from pathlib import Path
from typing import get_type_hints

import pytest

from configs.check import Checker, as_plain
from configs.classes import OWN, ROOT, RefusedError, named, world_of
from configs.load import load
from configs.problems import ConfigError
from configs.schema import Slot

PROGRAM = "{class_path: subprocess.Popen, init_args: {args: [touch, ran]}}"
WAYS = {
    "a merge method inside a callback": f"callbacks.merge.init_args.methods={{x: {PROGRAM}}}",
    "a candidate of the search": f"callbacks.merge.init_args.auto_candidates={{x: {PROGRAM}}}",
    "a function": "model.init_args.corpus=webbrowser.get",
    "a function behind one of our modules": "model.init_args.corpus=lightning_modules.families.tiny.torch.seed",
    "a function of ours for another place": "model.init_args.corpus=experiment.run.run_lineage",
    "a command of ours": "model.init_args.corpus=curation.__main__.main",
    "the model": f"model={PROGRAM}",
    "the objective": f"module={PROGRAM}",
    "a specialty": f"specialties.x={PROGRAM}",
    "a callback": f"callbacks.x={PROGRAM}",
    "an advantage": f"module.init_args.advantage={PROGRAM}",
    "a loss": f"module.init_args.loss={PROGRAM}",
    "a penalty": f"module.init_args.kl={PROGRAM}",
    "a transfer": f"module.init_args.transfer={PROGRAM}",
    "an engine": f"module.init_args.engine={PROGRAM}",
    "a reward": f"module.init_args.rewards=[{PROGRAM}]",
    "an option that is plain data": f"data.root={PROGRAM}",
    "an argument of the Trainer": f"trainer.strategy={PROGRAM}",
    "a profiler": f"trainer.profiler={PROGRAM}",
    "another option": f"feature_cache={PROGRAM}",
    "a class behind one of our modules": "module.init_args.advantage.class_path=lightning_modules.stage.Path",
    "a module": "module.init_args.advantage.class_path=lightning_modules.stage",
    "a hidden name": "module.init_args.advantage.class_path=configs.build.__loader__",
    "a class of ours for another place": "module.init_args.advantage.class_path=merge.methods.ties.Ties",
    "a part of another kind in a slot": "module.init_args.engine.class_path=lightning_modules.losses.clipped.Clipped",
    "a tag": "description=!!python/object/apply:os.system [touch ran]",
    "the environment": "description=${oc.env:HOME}",
    "another resolver": "description=${oc.decode:'1'}",
}

CHILD = """
import sys
heard = []
def hear(event, given):
    if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "webbrowser.open"):
        heard.append(event)
    if event == "import" and given[0].partition(".")[0] in ("webbrowser", "antigravity"):
        heard.append(given[0])
sys.addaudithook(hear)
import train
flags = ([], ["--dry-run"], ["--print-config"])
codes = {train.main(["--config", "rl_gba.yaml", word, *flags[i % 3]]) for i, word in enumerate(sys.argv[1:])}
print(codes, heard, "torch" in sys.modules)
"""


def test_a_yaml_runs_nothing_whatever_the_command_is_asked_to_do(tmp_path):
    """All ways at once, in a process that records what Python imports and runs."""
    command = [sys.executable, "-c", CHILD.replace("import train", f"sys.path[0] = {str(ROOT)!r}\nimport train")]
    done = subprocess.run([*command, *WAYS.values()], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines()[-1:] == ["{2} [] False"], done.stderr[-2000:]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("way", WAYS)
def test_each_way_is_refused_in_one_line_at_its_place(way):
    with pytest.raises(ConfigError) as caught:
        load("rl_gba.yaml", [WAYS[way]])
    key = WAYS[way].partition("=")[0].removesuffix(".class_path")
    assert {problem.key.removeprefix(key)[:1] for problem in caught.value.problems} <= {"", ".", "["}, caught.value


def test_the_refusal_says_exactly_what_to_write_and_then_it_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_rewards").mkdir()
    (tmp_path / "my_rewards/short.py").write_text(
        textwrap.dedent("""
            from lightning_modules.rewards.term import RewardTerm

            class Short(RewardTerm):
                def score(self, judged):
                    return 1.0
        """)
    )
    (tmp_path / "own.yaml").write_text(
        f"extends: {ROOT}/configs/rl_gba.yaml\nmodule:\n  init_args:\n    rewards:\n"
        "      - {class_path: my_rewards.short.Short, init_args: {weigt: 1}}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load("own.yaml")
    (line,) = str(caught.value).splitlines()
    assert line.startswith("own.yaml:4: module.init_args.rewards[0].class_path: the package 'my_rewards' is not this")
    assert "says trust: [my_rewards] at its top level, or the command line trust=[my_rewards]" in line
    assert "my_rewards.short" not in sys.modules
    (tmp_path / "own.yaml").write_text((tmp_path / "own.yaml").read_text() + "trust: [my_rewards]\n")
    try:
        with pytest.raises(ConfigError, match=r"rewards\[0\]\.init_args\.weigt: unknown key; did you mean 'weight'"):
            load("own.yaml")
        (tmp_path / "own.yaml").write_text((tmp_path / "own.yaml").read_text().replace("weigt", "weight"))
        rewards = load("own.yaml").resolved["module"]["init_args"]["rewards"]
        assert rewards == [{"class_path": "my_rewards.short.Short", "init_args": {"weight": 1.0}}]
    finally:
        for name in ("my_rewards", "my_rewards.short"):
            sys.modules.pop(name, None)


def test_what_is_trusted_must_still_be_of_the_slot_s_kind():
    for given in ("json.JSONDecoder", "subprocess.Popen"):
        trust = f"trust=[{given.partition('.')[0]}]"
        with pytest.raises(ConfigError, match=r"takes a subclass of merge\.methods\.interface\.MergeMethod"):
            load("rl_gba.yaml", [trust, f"callbacks.merge.init_args.methods.x.class_path={given}"])


@pytest.mark.parametrize("trust", ["os", "[1]", "{os: 1}", "[[os]]"])
def test_trust_is_a_list_of_names(trust):
    with pytest.raises(ConfigError, match=r"trust(\[0\])?: expected"):
        load("rl_gba.yaml", [f"trust={trust}"])


def test_recipes_and_curations_run_nothing_either(tmp_path):
    from curation.settings import load_settings
    from merge.recipe import load_recipe

    (tmp_path / "r.yaml").write_text(f"sources: {{a: x}}\nout: y\nmethod: {PROGRAM}\n")
    with pytest.raises(ConfigError, match=r"r\.yaml:3: method\.class_path: the package 'subprocess' is not this"):
        load_recipe(tmp_path / "r.yaml")
    (tmp_path / "r.yaml").write_text("sources: {a: x}\nout: y\nmethod: caci\nlive: {config: c, factory: os.system}\n")
    with pytest.raises(ConfigError, match=r"live\.factory: unknown key"):
        load_recipe(tmp_path / "r.yaml")
    for key in ("teacher", "base", "classifier", "pools.chest.data", "test_sets.x"):
        with pytest.raises(ConfigError, match=rf"{key}\.class_path: the package 'subprocess' is not this"):
            load_settings("curation/phantoms.yaml", [f"{key}={PROGRAM}"])
        with pytest.raises(ConfigError, match=rf"{key}\.class_path: this place takes a subclass of"):
            load_settings("curation/phantoms.yaml", [f"{key}={{class_path: merge.methods.ties.Ties}}"])


def test_a_folder_in_front_of_one_of_our_packages_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks/__init__.py").write_text("raise SystemExit('ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RefusedError, match="stands in front of the project's package benchmarks"):
        named("benchmarks.work.Work")


def test_an_old_result_s_settings_import_nothing(tmp_path):
    from configs.show import completed

    before = load("rl_gba.yaml").resolved
    before["callbacks"] = {"x": {"class_path": "antigravity.Comic", "init_args": {}}}
    assert completed(before)["callbacks"] == before["callbacks"]
    assert "antigravity" not in sys.modules


# -- every slot has an interface ---------------------------------------------------------------------------------


def our_configs():
    """Class path and `Config` of every class of ours that has one of its own, imported for real."""
    for package in sorted(OWN - {"benchmarks", "configs"}):
        for path in sorted((ROOT / package).rglob("*.py")):
            dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            if "class Config" in path.read_text(encoding="utf-8"):
                module = importlib.import_module(dotted)
                yield from (
                    (f"{dotted}.{n}", v) for n, v in vars(module).items() if "Config" in getattr(v, "__dict__", ())
                )


FREE = {
    "endpoints.endpoint.Endpoint.body",  # plain fields of a request
    "datamodules.phantoms.perception.PerceptionMixture.shares",
    "lightning_modules.advantages.guideline_based.GuidelineBased.priors",
    "merge.methods.learned.LearnedScalars.scalars",
    "callbacks.merge_experts.LearnedScalars.scalars",  # the same class, imported there
}
"""Options that are mappings of plain data."""


def test_an_option_that_holds_a_component_names_what_it_takes():
    found = []
    for class_path, cls in our_configs():
        for name, hint in cls.Config.__annotations__.items():
            if "dict" in str(hint) and "Slot(" not in str(hint) and f"{class_path}.{name}" not in FREE:
                found.append(f"{class_path}.{name}: {hint}")
            if name in ("corpus", "function") and "Function(" not in str(hint):
                found.append(f"{class_path}.{name}: {hint}")
    assert found == []


def described(paths):
    """What each class's `Config` says: fields, types and defaults."""
    found = {}
    for path in paths:
        with world_of(path):
            config = named(path).Config
            hints = {name: str(hint) for name, hint in get_type_hints(config).items()}
            found[path] = [hints, as_plain({f.name: f.default for f in fields(config) if f.default is not MISSING})]
    return found


@pytest.mark.slow
def test_with_stand_ins_every_config_is_the_one_of_the_real_import():
    """Reference: the import for real, in this process."""
    real = dict(our_configs())
    program = (
        "import json, sys\nfrom tests.configs.test_trust import described\n"
        "found = described(sys.argv[1:])\nassert 'torch' not in sys.modules\nprint(json.dumps(found))"
    )
    done = subprocess.run([sys.executable, "-c", program, *real], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == json.loads(json.dumps(described(real)))
    assert len(real) > 40


def test_a_slot_is_seen_through_lists_mappings_and_optional_values():
    for key in ("module.init_args.kl", "module.init_args.transfer", "module.init_args.rewards"):
        wrong = "{class_path: merge.methods.ties.Ties}"
        with pytest.raises(ConfigError, match="takes a subclass of"):
            load("rl_gba.yaml", [f"{key}={f'[{wrong}]' if key.endswith('rewards') else wrong}"])
    notes = []
    checker = Checker(lambda *fault: notes.append(fault))
    assert checker.component(
        {"class_path": "merge.methods.ties.Ties"}, Slot("merge.methods.interface.MergeMethod"), "m"
    )
    assert notes == []


def test_looking_at_our_code_leaves_no_stand_in_behind():
    before = dict(sys.modules)
    with world_of("merge.methods.ties.Ties"):
        named("merge.methods.ties.Ties")
    after = {n: m for n, m in sys.modules.items() if n in before}
    assert all(after[name] is module for name, module in before.items() if name in after)
    assert Path(sys.modules["configs.classes"].__file__).is_relative_to(ROOT)
