# Reference: the interpreter, with packages hidden that a machine with a card may lack.
# Run: pytest tests/test_optional_packages.py
import subprocess
import sys
from pathlib import Path

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
    return done.stdout


def test_every_module_is_imported_and_parts_are_built_without_omegaconf_and_bitsandbytes():
    told = run(
        """
import importlib, pkgutil
for room in ("artifacts", "answering", "benchmarks.gpu", "lightning_modules", "merge"):
    package = importlib.import_module(room)
    for module in pkgutil.walk_packages(package.__path__, f"{room}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
from lightning_modules.rl_gba import GBA
from lightning_modules.rl_parts import RLParts
parts = RLParts.of(GBA.Config())
print(parts.transfer.config.eta, type(parts.advantage).__name__)
from merge.recipe import read_method
print(read_method("caci").config.density)
from experiment.provenance import provenance
print(provenance()["packages"]["omegaconf"])
assert not {"omegaconf", "bitsandbytes"} & set(sys.modules)
"""
    )
    assert told.split() == ["1.0", "GuidelineBased", "0.2", "None"]
