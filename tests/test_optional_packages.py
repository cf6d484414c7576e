# Reference: the interpreter, with packages hidden that a machine with a card may lack.
# Run: pytest tests/test_optional_packages.py
import ast
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from experiment.provenance import provenance
from lightning_modules.rl_gba import GBA
from lightning_modules.rl_parts import RLParts
from merge.recipe import read_method
from tests.test_imports import imports, sources

OPTIONAL = ("omegaconf", "bitsandbytes")
ROOT = Path(__file__).resolve().parents[1]
HIDDEN = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("omegaconf", "bitsandbytes"):
            raise ModuleNotFoundError(f"{name} is hidden", name=name)
sys.meta_path.insert(0, Hidden())
from importlib import metadata
version = metadata.version
def versions(name):
    if name in ("omegaconf", "bitsandbytes"):
        raise metadata.PackageNotFoundError(name)
    return version(name)
metadata.version = versions
"""


def run(code):
    """Run code in a process of its own, without those packages."""
    done = subprocess.run([sys.executable, "-c", HIDDEN + code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_no_module_needs_an_optional_package_to_be_imported():
    found = []
    for path in (path for path in sources() if any(name in path.read_text() for name in OPTIONAL)):
        tree = ast.parse(path.read_bytes())
        inside = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        late = {line for node in inside for line in range(node.lineno, node.end_lineno + 1)}
        found += [
            f"{path.relative_to(ROOT)}:{line}: {module}"
            for line, module in imports(path)
            if module.partition(".")[0] in OPTIONAL and line not in late
        ]
    assert found == []


def test_parts_are_built_and_a_run_is_recorded_without_them(monkeypatch):
    version = metadata.version

    def installed(name):
        if name in OPTIONAL:
            raise metadata.PackageNotFoundError(name)
        return version(name)

    for name in OPTIONAL:
        monkeypatch.setitem(sys.modules, name, None)  # an import of it fails
    monkeypatch.setattr(metadata, "version", installed)
    parts = RLParts.of(GBA.Config())
    assert (type(parts.advantage).__name__, parts.transfer.config.eta) == ("GuidelineBased", 1.0)
    assert read_method("caci").config.density == 0.2
    packages = provenance()["packages"]
    assert packages["omegaconf"] is None
    assert packages["torch"] == version("torch")


@pytest.mark.slow
def test_every_module_is_imported_without_them():
    run(
        """
import importlib, pkgutil
for room in ("artifacts", "answering", "benchmarks.gpu", "callbacks", "evaluation", "lightning_modules", "merge"):
    package = importlib.import_module(room)
    for module in pkgutil.walk_packages(package.__path__, f"{room}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
assert not {"omegaconf", "bitsandbytes"} & set(sys.modules)
"""
    )
