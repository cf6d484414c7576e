"""Reference: what an import of the same source gives. Run: pytest tests/configs/test_static.py."""

import dataclasses
import importlib
import subprocess
import sys
import textwrap

import pytest

from configs.annotations import field_types
from configs.static import ROOT as REPOSITORY
from configs.static import NoSuchClassError, NotStaticError, config_class, find_class

OPTIONS = """
    from __future__ import annotations
    import math
    from dataclasses import dataclass, field
    from typing import TYPE_CHECKING, Literal
    import staticpkg.heavy
    from staticpkg.plain import Weights, LIMIT as HIGHEST
    if TYPE_CHECKING:
        from staticpkg.heavy import Tensor

    Kind = Literal["a", "b"]
    KINDS = ("a", "b")
    DEFAULTS = {"rate": 0.5}
    EXPENSIVE = staticpkg.heavy.VALUE

    def at_most(value: Tensor, limit) -> Tensor:
        return value if value <= limit else math.inf

    class Base(staticpkg.heavy.Thing):
        @dataclass(frozen=True)
        class Config:
            kind: Kind = KINDS[0]
            rate: float = DEFAULTS["rate"]
            weights: Weights = field(default_factory=Weights)

            def __post_init__(self) -> None:
                if at_most(self.rate, HIGHEST) == math.inf:
                    raise ValueError(f"rate must be at most {HIGHEST}, got {self.rate}")

    class Child(Base):
        pass

    class Own:
        @dataclass(frozen=True)
        class Config(Base.Config):
            extra: int | None = None

            def doubled(self) -> Own.Config:
                return self

    class Without:
        pass

    class NeedsImport:
        @dataclass(frozen=True)
        class Config:
            value: float = EXPENSIVE

    made = type("Made", (), {})
"""
FILES = {
    "__init__": "from staticpkg.options import Base as Exported\nfrom .options import Child",
    "heavy": "import torch\nVALUE = 1.5\nTensor = float\n\nclass Thing:\n    pass\n",
    "plain": """
        from dataclasses import dataclass
        import numpy
        LIMIT = 2 ** 3

        @dataclass(frozen=True)
        class Weights:
            right: float = 1.0
    """,
    "options": OPTIONS,
    "grandchild": "from staticpkg import options\n\nclass GrandChild(options.Child):\n    pass\n",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package on the path that cannot be read completely without importing torch and numpy."""
    folder = tmp_path / "staticpkg"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "staticpkg"]:
        del sys.modules[name]


def described(config: type) -> list[tuple]:
    """Names, types in words, and default values of a dataclass."""
    types, values = field_types(config), dataclasses.asdict(config())
    return [(name, getattr(kind, "__name__", str(kind)), values[name]) for name, kind in types.items()]


@pytest.mark.parametrize(
    "class_path",
    [
        "staticpkg.options.Base",
        "staticpkg.options.Child",
        "staticpkg.options.Own",
        "staticpkg.grandchild.GrandChild",
        "staticpkg.Exported",
        "staticpkg.Child",
    ],
)
def test_the_config_read_equals_the_config_imported(package, class_path):
    read = config_class(class_path)
    assert not any(name.startswith("staticpkg") for name in sys.modules)
    module, _, name = class_path.rpartition(".")
    imported = getattr(importlib.import_module(module), name).Config
    assert described(read) == described(imported)
    with pytest.raises(ValueError, match="rate must be at most 8, got 9"):
        read(rate=9.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        read().rate = 1.0


def test_what_has_no_config_and_what_cannot_be_read(package):
    assert config_class("staticpkg.options.Without") is None
    with pytest.raises(NotStaticError, match="has to be imported"):
        config_class("staticpkg.options.NeedsImport")
    with pytest.raises(NotStaticError, match="not defined by a class statement"):
        config_class("staticpkg.options.made")
    with pytest.raises(NoSuchClassError, match=r"options\.py.*no class 'Bass'"):
        config_class("staticpkg.options.Bass")
    with pytest.raises(NoSuchClassError, match=r"no module 'staticpkg\.optoins'"):
        config_class("staticpkg.optoins.Base")
    for path in ("Base", "", "staticpkg..Base", "../etc.passwd", "staticpkg.options.Base()"):
        with pytest.raises(NoSuchClassError):
            config_class(path)
    (package / "broken.py").write_text("class A(:\n")
    with pytest.raises(NotStaticError, match="does not parse"):
        config_class("staticpkg.broken.A")


def test_an_edited_file_is_read_again(package):
    (package / "edited.py").write_text("class A:\n    pass\n")
    assert config_class("staticpkg.edited.A") is None
    (package / "edited.py").write_text(
        "from dataclasses import dataclass\nclass A:\n    @dataclass\n    class Config:\n        n: int = 1\n    pass\n"
    )
    assert config_class("staticpkg.edited.A")().n == 1


def test_re_exports_are_followed_to_the_class():
    source, node = find_class("lightning.pytorch.callbacks.EarlyStopping")
    assert (source.path.name, node.name) == ("early_stopping.py", "EarlyStopping")


def test_every_config_of_ours_can_be_read_without_torch():
    """Reference: the import of the same class, in this process; the reading happens in one without torch."""
    paths = []
    for package in ("datamodules", "lightning_modules", "callbacks", "merge", "evaluation"):
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            dotted = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
            if "    class Config" in path.read_text(encoding="utf-8"):
                module = importlib.import_module(dotted)
                paths += [f"{dotted}.{n}" for n, v in vars(module).items() if "Config" in getattr(v, "__dict__", ())]
    assert "datamodules.base.VQADataModule" in paths
    code = (
        "import sys\nfrom configs.annotations import field_types\nfrom configs.static import config_class\n"
        "for path in sys.argv[1:]:\n    print(path, *sorted(field_types(config_class(path))))\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        path, *names = line.split()
        module, _, name = path.rpartition(".")
        owner = getattr(importlib.import_module(module), name)
        assert names == sorted(field_types(owner.Config, owner)), path
