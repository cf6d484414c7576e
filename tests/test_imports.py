"""Reference: the table of import directions below, against the imports that `ast` finds.

Run: pytest tests/test_imports.py.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {path.parent.name for path in ROOT.glob("*/__init__.py")} | {path.stem for path in ROOT.glob("*.py")}

EVERYWHERE = ("guards",)
"""What all rooms may import: it checks and prints, knows nothing of any of them, and imports no more than Python."""

ALLOWED = {
    "guards": (),
    "configs": (),
    "datamodules": (),
    # What is imitated is read by the reader that will score it, and no other.
    "datamodules/targets.py": ("datamodules", "evaluation"),
    "datamodules/check/report.py": ("datamodules", "evaluation.detectable"),
    **{f"datamodules/{name}__main__.py": ("configs", "datamodules") for name in ("", "check/")},
    "evaluation": ("datamodules.batch", "datamodules.prompts"),
    # A report shows questions and pictures beside the answers, so it reads the sets that an experiment's settings name.
    "evaluation/report": ("configs", "datamodules", "evaluation"),
    "evaluation/answers.py": ("evaluation.lenient", "evaluation.thinking"),
    "evaluation/lenient.py": tuple(f"evaluation.{name}" for name in ("claims", "marks", "mentions", "rules")),
    "evaluation/mentions.py": ("evaluation.marks", "evaluation.rules"),
    "evaluation/rules.py": ("evaluation.claims", "evaluation.marks"),
    **{f"evaluation/{name}.py": () for name in ("claims", "marks", "thinking")},
    "artifacts": (),
    "merge": ("artifacts", "configs"),  # a recipe is read by the one loader
    "lightning_modules": (
        "datamodules.batch",
        "datamodules.graded",
        "datamodules.loading",
        "datamodules.order",
        "datamodules.prompts",
        "datamodules.sight",
        "evaluation.answers",
        "evaluation.open_answers",
        "artifacts",
        "configs.build",
        "configs.checkpoints",
        "configs.schema",
    ),
    "endpoints": ("artifacts", "datamodules.base", "datamodules.batch", "datamodules.json_rows"),
    "endpoints/command.py": ("artifacts", "configs.problems", "endpoints"),
    "answering": ("artifacts", "datamodules", "endpoints", "evaluation", "lightning_modules", "merge"),
    "lightning_modules/functional": (),
    "curation": (
        "answering",
        "artifacts",
        "configs",
        "datamodules",
        "endpoints",
        "evaluation",
        "experiment",
        "lightning_modules",
    ),
    "judging": (
        "answering",
        "artifacts",
        "configs",
        "datamodules",
        "endpoints",
        "evaluation",
        "experiment",
        "lightning_modules",
    ),
    "benchmarks": ("artifacts", "datamodules.batch", "datamodules.prompts", "experiment", "lightning_modules", "merge"),
    **{f"benchmarks/{name}.py": () for name in ("work", "clock", "made_model", "merge_work", "merge_inputs")},
    # What runs in the peers' environment, which has none of our other packages.
    **{
        f"benchmarks/{name}.py": ("benchmarks",)
        for name in ("made_rows", "worker", "trl_model", "trl_rl", "trl_sft", "peft_merge", "mergekit_merge")
    },
    "lightning_modules/rewards": ("evaluation.answers", "evaluation.open_answers"),
    "callbacks": (
        "answering",
        "artifacts",
        "configs.build",
        "configs.schema",
        "datamodules",
        "evaluation",
        "experiment",
        "lightning_modules",
        "merge",
    ),
}
"""Part of the tree -> what of ours it may import besides its own package; the longest matching part holds."""

PURE = {
    "merge/methods": ("merge", "guards.ranges"),
    "lightning_modules/functional": ("lightning_modules.functional",),
}
"""Maths: no logging, no files, no frameworks; only torch, the standard library and these of ours."""
NOT_IN_MATHS = ("lightning", "transformers", "peft", "tensorboard", "logging", "pickle")
NOWHERE = ("pickle", "dill", "joblib", "shelve", "pytorch_lightning")
"""pickle and its kin run code from files; pytorch_lightning is a second copy of lightning."""
WITHOUT_TORCH = ("configs", "guards", "lightning_modules/rewards")


def sources(part: str = "") -> list[Path]:
    """Our Python files, or those of one part of the tree."""
    packages = [part] if part else sorted(name for name in OURS if (ROOT / name).is_dir() and name != "tests")
    files = [ROOT / part] if part.endswith(".py") else [p for name in packages for p in (ROOT / name).rglob("*.py")]
    return sorted(path for path in files + ([] if part else list(ROOT.glob("*.py"))) if path.is_file())


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import in a file, wherever it stands; `from a import b` gives a.b."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join(filter(None, [*base, node.module]))
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def below(module: str, prefixes: tuple[str, ...]) -> bool:
    """Whether a module is one of the prefixes or lies in it."""
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in prefixes)


def rule(path: Path) -> tuple[str, ...] | None:
    """What of ours a file may import; None where no rule holds (programs at the top)."""
    relative = path.relative_to(ROOT)
    for part in (relative, *relative.parents):
        if str(part) in ALLOWED:
            own = ".".join(part.with_suffix("").parts)
            return (own, *EVERYWHERE, *ALLOWED[str(part)])
    return None


def wrong_directions(files: list[Path]) -> list[str]:
    """Imports of ours that the table does not allow."""
    found = []
    for path in files:
        allowed = rule(path)
        for line, module in imports(path) if allowed is not None else ():
            if module.partition(".")[0] in OURS and not below(module, allowed):
                found.append(f"{path.relative_to(ROOT)}:{line}: imports {module}; allowed: {', '.join(allowed)}")
    return found


def test_imports_go_one_way():
    assert wrong_directions(sources()) == []


BY_NAME = {
    "configs/schema.py": (
        "experiment.launchers.interface.Launcher",
        *("callbacks.experiment_callback.ExperimentCallback", "datamodules.base.VQADataModule"),
        *("lightning_modules.families.base.VisionLanguageFamily", "lightning_modules.stage.Stage"),
        "endpoints.endpoint.Endpoint",
    ),
    "datamodules/check/__main__.py": ("lightning_modules.families.base.VisionLanguageFamily",),
    "merge/live.py": ("experiment.live_model.merge_answers",),
    "lightning_modules/families/tiny.py": ("datamodules.phantoms.perception.corpus",),
}
"""File -> what it names by a dotted string against the table: the interfaces of slots, a default that a YAML may
replace, and the one room that a merge asks for a live model."""


def dotted_strings(path: Path) -> Iterator[str]:
    """Every string in a file that is the dotted path of something of ours; not in docstrings."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            parts = node.value.split(".")
            if len(parts) > 2 and parts[0] in OURS and all(part.isidentifier() for part in parts):
                yield node.value


def test_no_room_is_entered_by_a_string_behind_the_table_s_back():
    found = []
    for path in sources():
        allowed = rule(path)
        named = BY_NAME.get(str(path.relative_to(ROOT)), ())
        for dotted in dotted_strings(path) if allowed is not None else ():
            if not below(dotted, allowed) and dotted not in named:
                found.append(f"{path.relative_to(ROOT)}: {dotted}")
    assert found == []


def test_a_wrong_direction_is_seen(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    folder = tmp_path / "lightning_modules" / "rewards"
    folder.mkdir(parents=True)
    (folder / "a.py").write_text("def f():\n    from callbacks.merge_experts import x\n")
    (folder / "b.py").write_text("from lightning_modules.rewards import a\nfrom evaluation.answers import extract\n")
    (folder / "c.py").write_text("from ..policy import Policy\n")
    found = wrong_directions(sorted(folder.glob("*.py")))
    assert [line.split(": ")[0] for line in found] == [
        "lightning_modules/rewards/a.py:2",
        "lightning_modules/rewards/c.py:1",
    ]


def test_every_package_has_a_rule():
    assert OURS - {"tests"} - {path.stem for path in ROOT.glob("*.py")} <= set(ALLOWED) | {"experiment"}


@pytest.mark.parametrize("part", PURE)
def test_maths_imports_only_maths(part):
    found = [
        f"{path.relative_to(ROOT)}:{line}: {module}"
        for path in sources(part)
        for line, module in imports(path)
        if module.partition(".")[0] in NOT_IN_MATHS
        or (module.partition(".")[0] in OURS and not below(module, PURE[part]))
    ]
    assert found == []


@pytest.mark.parametrize("part", WITHOUT_TORCH)
def test_these_import_no_torch(part):
    heavy = ("torch", "lightning", "transformers", "peft")
    found = [f"{p.relative_to(ROOT)}:{n}: {m}" for p in sources(part) for n, m in imports(p) if below(m, heavy)]
    assert found == []


def test_nothing_imports_what_is_not_allowed_anywhere():
    found = [f"{p.relative_to(ROOT)}:{n}: {m}" for p in sources() for n, m in imports(p) if below(m, NOWHERE)]
    assert found == []


def calls(path: Path) -> Iterator[tuple[ast.Call, str]]:
    """Every call in a file with the dotted name of what is called."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def test_files_are_read_without_running_code_from_them():
    found = []
    for path in sources():
        for call, name in calls(path):
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            if name == "torch.load" and keywords.get("weights_only") != "True":
                found.append(f"{path.relative_to(ROOT)}:{call.lineno}: torch.load without weights_only=True")
            if keywords.get("trust_remote_code", "False") != "False":
                found.append(f"{path.relative_to(ROOT)}:{call.lineno}: trust_remote_code")
            if keywords.get("allow_pickle", "False") != "False":
                found.append(f"{path.relative_to(ROOT)}:{call.lineno}: allow_pickle")
            if name == "yaml.load" and "Loader" not in keywords:
                found.append(f"{path.relative_to(ROOT)}:{call.lineno}: yaml.load")
    assert found == []


def test_input_is_not_checked_by_assert():
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Assert)
    ]
    assert found == [], "asserts vanish under python -O: raise an error that names place, value and allowed values"


def test_test_modules_have_unique_names():
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)
