"""Reference: what the pages tell a reader to write, carried out to the letter in a copy of the repository.

Run: pytest tests/test_add_specialty.py (slow: "Add a specialty by a class" is trained).
"""

import ast
import csv
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from PIL import Image, ImageDraw

from artifacts.adapter_files import read_adapter
from configs.load import load

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PACKAGES = (
    *(
        "answering",
        "artifacts",
        "callbacks",
        "configs",
        "datamodules",
        "endpoints",
        "evaluation",
        "experiment",
        "guards",
    ),
    *("lightning_modules",),
    *("merge", "train.py"),
)


def block(language: str, title: str = "Add a specialty by a class") -> tuple[str, str]:
    """(file name in its first comment line, text) of a section's block in a language."""
    sections = [re.search(rf"^##+ {title}\n(.*?)(?=^## |\Z)", page.read_text("utf-8"), re.M | re.S) for page in PAGES]
    [section] = filter(None, sections)
    found = re.findall(rf"^```{language}\n(.*?)^```", section[1], re.M | re.S)
    assert len(found) == 1, f"expected one {language} block, found {len(found)}"
    name = re.match(r"# (\S+)\n", found[0])
    assert name, f"the {language} block must begin with a comment that names its file"
    return name[1], found[0]


def commands() -> list[str]:
    """Every `python train.py` line of the pages that stands alone, without variables or a reader's own files."""
    lines = [line for page in PAGES for line in page.read_text("utf-8").splitlines()]
    found = [line for line in lines if line.startswith("python train.py --config") and "$" not in line]
    own = ("my/", "=dental")  # files that a reader has, or that an earlier command wrote
    return [line for line in dict.fromkeys(found) if not any(name in line for name in own) and not line.endswith("\\")]


def copied(folder: Path) -> None:
    """A copy of the code."""
    for name in PACKAGES:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, folder / name)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """A Python process in a copy."""
    return subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)


def make_films(root: Path) -> None:
    """Forty patients with a film and a question each, in the columns that the section describes."""
    root.mkdir(parents=True)
    with open(root / "questions.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        columns = ["patient_id", "file", "question", *"ABCD", "answer", "intuitive", "analytical"]
        writer.writerow(columns)
        for i in range(40):
            image = Image.new("RGB", (112, 112), (30, 30, 30))
            ImageDraw.Draw(image).ellipse((20, 20, 30 + i, 30 + i), fill=(220, 220, 220))
            image.save(root / f"{i}.png")
            letter = "ABCD"[i % 4]
            chain = f"a bright spot, typical, so the answer is option {i % 4}."
            options = [f"option {k}" for k in range(4)]
            writer.writerow([f"p{i}", f"{i}.png", "what does the film show?", *options, letter, chain, chain])


def test_the_section_is_one_short_class_and_one_file():
    name, code = block("python")
    classes = [node for node in ast.parse(code).body if isinstance(node, ast.ClassDef)]
    assert name.startswith("datamodules/")
    assert len(classes) == 1
    assert classes[0].end_lineno - classes[0].lineno + 1 < 40
    file, text = block("yaml")
    assert file.startswith("configs/")
    paths = [entry["class_path"] for entry in yaml.safe_load(text)["specialties"].values()]
    assert f"{name.removesuffix('.py').replace('/', '.')}.{classes[0].name}" in paths


def test_the_section_s_experiment_is_a_good_configuration(tmp_path):
    copied(tmp_path)
    for language in ("python", "yaml"):
        name, text = block(language)
        (tmp_path / name).write_text(text)
    shown = run(tmp_path, "train.py", "--config", Path(name).name, "--print-config")
    assert shown.returncode == 0, shown.stderr
    assert yaml.safe_load(shown.stdout)["model"]["init_args"]["path"] == "configs/model/tiny_base"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_the_section_s_class_reads_what_a_spreadsheet_exports(encoding, delimiter, tmp_path, monkeypatch):
    make_films(tmp_path / "films")
    path = tmp_path / "films" / "questions.csv"
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    with open(path, "w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    module = ModuleType("dental")
    monkeypatch.setitem(sys.modules, "dental", module)  # where dataclasses look for their names
    exec(compile(block("python")[1], "dental.py", "exec"), module.__dict__)
    films = module.DentalFilms(module.DentalFilms.Config(root=str(tmp_path / "films")), specialty="dental")
    held = [example for split in films.splits.values() for example in split]
    assert len(held) == 40
    assert all(example.images[0].is_file() and len(example.reasoning) == 2 for example in held)
    path.write_bytes(path.read_bytes()[:-30])
    assert films.__class__(films.config, specialty="dental").scan.all_rows.rows == 40


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_pages_is_a_good_configuration(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    config, *overrides = [word for word in shlex.split(command, comments=True)[3:] if not word.startswith("--")]
    for adapters in [text.partition("=")[2] for text in overrides if text.startswith("adapters=")]:
        for folder in yaml.safe_load(adapters):  # what an earlier command of the page has left
            Path(folder, "adapter").mkdir(parents=True)
            Path(folder, "adapter", "manifest.json").write_text("{}")
    assert load(config, overrides).experiment


def test_the_settings_of_a_fit_that_the_page_writes_out_are_good(tmp_path):
    name, text = block("yaml", "Change how a run is fitted")
    (tmp_path / Path(name).name).write_text(text)
    assert load(tmp_path / Path(name).name).resolved["fit"]["keep"] == "best"


def test_the_recipe_that_the_page_writes_out_is_the_default():
    section = (ROOT / "docs" / "recipes.md").read_text("utf-8")
    (text,) = re.findall(r"advantage: \{class_path: …, (init_args: \{.*?\}, scale_by_std: true\})", section)
    resolved = load("rl_gba.yaml").resolved["module"]["init_args"]["advantage"]
    assert yaml.safe_load(text)["init_args"] == resolved["init_args"]
    assert resolved["class_path"] in section


def test_a_reader_who_follows_the_section_has_a_reward_term(tmp_path):
    copied(tmp_path)
    for language in ("python", "yaml"):
        name, text = block(language, "Add a reward term")
        assert not (tmp_path / name).exists()
        (tmp_path / name).write_text(text)
    shown = run(tmp_path, "train.py", "--config", "rl_brief.yaml", "--print-config")
    assert shown.returncode == 0, shown.stderr
    rewards = yaml.safe_load(shown.stdout)["module"]["init_args"]["rewards"]
    assert [term["init_args"]["weight"] for term in rewards] == [1.0, 0.1, 0.2, 0.05]
    # A right answer of few words has all of it, one of many words all but the new term.
    code = f"""
from datamodules.batch import Example
from lightning_modules.parts import part
from lightning_modules.rewards.combine import Rewards
from lightning_modules.rewards.guidelines import load_guidelines
from lightning_modules.rewards.term import RewardTerm

rewards = Rewards([part(spec, RewardTerm, "rewards") for spec in {rewards!r}])
neutral = load_guidelines(["neutral"])["neutral"]
example = Example("p", (), "Where is it?", ("left", "right"), "left", "q")
few = "the left lower zone is white, so left."
many = (
    "the left lower zone is white and its upper edge is curved like a meniscus, while vessels elsewhere reach the "
    "chest wall from apex to base. the heart keeps its outline, no rib looks broken, every marker agrees with what "
    "the letter of referral tells, so left."
)
for thinking in (few, many):
    found = rewards(f"<think>{{thinking}}</think><answer>{{example.letter}}</answer>", example, neutral)
    print(found.gate, found.parts["brief"], round(found.total, 9))
"""
    scored = run(tmp_path, "-c", code)
    assert scored.stdout.splitlines() == ["None 1.0 1.15", "None 0.0 1.1"], scored.stderr


@pytest.mark.slow
def test_a_reader_who_follows_the_section_trains_an_expert(tmp_path):
    copied(tmp_path)
    for language in ("python", "yaml"):
        name, text = block(language)
        assert not (tmp_path / name).exists()
        (tmp_path / name).write_text(text)
    config = yaml.safe_load(block("yaml")[1])
    [specialty] = config["specialties"]
    root = re.search(r'root: str = "(.*?)"', block("python")[1])[1]
    make_films(tmp_path / root)
    config_file = Path(block("yaml")[0]).name
    command = ["train.py", "--config", config_file, "budget=0.02"]
    dry = run(tmp_path, *command, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert f"{specialty} (to do)" in dry.stdout
    done = run(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    left = tmp_path / "runs" / Path(config_file).stem / specialty
    manifest = read_adapter(left / "adapter", base_fingerprint=None).manifest
    assert manifest["specialty"] == specialty
    assert "step 2/2" in done.stdout
