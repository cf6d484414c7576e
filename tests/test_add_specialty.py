"""Reference: the README's section "Add a specialty", carried out to the letter in a copy of the repository.

Run: pytest -m slow tests/test_add_specialty.py. The variable README names another file to take the section from.
"""

import ast
import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image, ImageDraw

from artifacts.adapter_files import read_adapter

ROOT = Path(__file__).resolve().parents[1]
README = Path(os.environ.get("README", ROOT / "README.md"))
PACKAGES = ("callbacks", "configs", "datamodules", "evaluation", "experiment", "lightning_modules", "merge", "train.py")


def block(language: str) -> tuple[str, str]:
    """(file name in its first comment line, text) of the section's block in a language."""
    section = re.search(r"^##+ Add a specialty\n(.*?)(?=^## |\Z)", README.read_text("utf-8"), re.M | re.S)
    assert section, f"{README} has no section 'Add a specialty'"
    found = re.findall(rf"^```{language}\n(.*?)^```", section[1], re.M | re.S)
    assert len(found) == 1, f"expected one {language} block, found {len(found)}"
    name = re.match(r"# (\S+)\n", found[0])
    assert name, f"the {language} block must begin with a comment that names its file"
    return name[1], found[0]


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


@pytest.mark.slow
def test_a_reader_who_follows_the_section_trains_an_expert(tmp_path):
    for name in PACKAGES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    for language in ("python", "yaml"):
        name, text = block(language)
        assert not (tmp_path / name).exists()
        (tmp_path / name).write_text(text)
    config = yaml.safe_load(block("yaml")[1])
    [specialty] = config["specialties"]
    root = re.search(r'root: str = "(.*?)"', block("python")[1])[1]
    make_films(tmp_path / root)
    config_file = Path(block("yaml")[0]).name
    command = [sys.executable, "train.py", "--config", config_file, "budget=0.02"]
    dry = subprocess.run([*command, "--dry-run"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert dry.returncode == 0, dry.stderr
    assert f"{specialty} (to do)" in dry.stdout
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / Path(config_file).stem / specialty
    manifest = read_adapter(run / "adapter", base_fingerprint=None).manifest
    assert manifest["specialty"] == specialty
    assert "step 2/2" in done.stdout
