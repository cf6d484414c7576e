"""What a class path stands for, read from source files without importing them (and so without importing torch).

Our convention makes this possible: a class's options are a frozen dataclass `Config` nested in it, and a `Config`
needs nothing but the standard library. Its few statements are run on their own; the module around them is not.
Whatever does not follow the convention raises `NotStaticError`, and the caller imports the module instead.
"""

from __future__ import annotations

import ast
import builtins
import copy
import importlib
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LIGHT = sys.stdlib_module_names | {"typing_extensions"}
"""Top-level modules that may be imported while a configuration is read."""


class NoSuchClassError(LookupError):
    """The class path leads nowhere; the message says which part of it is missing."""


class NotStaticError(LookupError):
    """The source alone does not tell; importing the module would."""


def module_file(dotted: str) -> Path | None:
    """The source file of a module, found as an import would find it; parent packages are not imported."""
    parts = dotted.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    for entry in [*sys.path, str(ROOT)]:
        base = Path(entry or ".").joinpath(*parts)
        for candidate in (base / "__init__.py", base.parent / f"{base.name}.py"):
            if candidate.is_file():
                return candidate.resolve()
    return None


def source_file(dotted: str) -> SourceFile:
    """The parsed source of a module.

    Raises:
        NoSuchClassError: there is no such file.
        NotStaticError: the file is not Python source that parses.
    """
    path = module_file(dotted)
    if path is None:
        raise NoSuchClassError(f"there is no module {dotted!r}")
    return parsed(path, dotted, path.stat().st_mtime_ns)


@lru_cache(maxsize=512)
def parsed(path: Path, dotted: str, modified_ns: int) -> SourceFile:
    """One `SourceFile` per state of a file."""
    return SourceFile(path, dotted)


class WithoutAnnotations(ast.NodeTransformer):
    """Drops the annotations of functions: they may name anything, and nothing here calls for them."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Clear what a function says about its types."""
        node.returns = None
        for argument in ast.walk(node.args):
            if isinstance(argument, ast.arg):
                argument.annotation = None
        self.generic_visit(node)
        return node


class SourceFile:
    """The top-level statements of a module, each run only when something needs it."""

    def __init__(self, path: Path, dotted: str) -> None:
        self.path = path
        self.dotted = dotted
        self.package = dotted if path.name == "__init__.py" else dotted.rpartition(".")[0]
        try:
            body = ast.parse(path.read_bytes()).body
        except (SyntaxError, ValueError) as error:
            raise NotStaticError(f"{path} does not parse: {error}") from error
        self.statements = {name: node for node in flattened(body) for name in bound_names(node)}
        self.namespace: dict[str, Any] = {"__name__": __name__, "__builtins__": builtins}
        self.in_progress: set[str] = set()

    def classes(self) -> list[str]:
        """Names of the classes defined here."""
        return [name for name, node in self.statements.items() if isinstance(node, ast.ClassDef)]

    def provide(self, name: str) -> None:
        """Put a top-level name into the namespace, with whatever it needs.

        Raises:
            NotStaticError: that takes more than the standard library and our own plain definitions.
        """
        if name in self.namespace or name in self.in_progress or hasattr(builtins, name):
            return
        node = self.statements.get(name)
        if node is None:
            raise NotStaticError(f"{self.path}: {name} is not defined at the top level")
        self.in_progress.add(name)
        try:
            if isinstance(node, ast.Import | ast.ImportFrom):
                self.namespace[name] = self.imported(name, node)
            elif isinstance(node, ast.ClassDef) and not node.decorator_list and (config := self.config_of(node)):
                self.namespace[name] = SimpleNamespace(Config=config)  # all that `class Config(Base.Config)` asks for
            else:
                self.run(node, self.namespace)
        finally:
            self.in_progress.discard(name)

    def imported(self, name: str, node: ast.Import | ast.ImportFrom) -> Any:
        """The object that an import binds: from the standard library for real, from our files by their source."""
        target = self.import_target(name, node)
        if target.partition(".")[0] in LIGHT:
            if isinstance(node, ast.ImportFrom):
                return getattr(importlib.import_module(target.rpartition(".")[0]), target.rpartition(".")[2])
            return importlib.import_module(target)
        module, _, attribute = target.rpartition(".")
        if isinstance(node, ast.Import) or Path(module_file(module) or "").is_relative_to(sys.prefix):
            raise NotStaticError(f"{self.path}: {name} comes from {target}, which has to be imported")
        try:
            source = source_file(module)
        except NoSuchClassError as error:
            raise NotStaticError(str(error)) from error
        source.provide(attribute)
        if attribute not in source.namespace:
            raise NotStaticError(f"{self.path}: {name} depends on itself")
        return source.namespace[attribute]

    def import_target(self, name: str, node: ast.Import | ast.ImportFrom) -> str:
        """The dotted path that an imported name stands for."""
        alias = next(alias for alias in node.names if name in (alias.asname, alias.name, alias.name.partition(".")[0]))
        if isinstance(node, ast.Import):
            return alias.name if alias.asname else alias.name.partition(".")[0]
        parts = self.package.split(".")
        base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
        return ".".join(filter(None, [base, node.module, alias.name]))

    def run(self, node: ast.stmt | ast.expr, target: dict[str, Any]) -> None:
        """Run one statement in the module's namespace; what it binds goes to `target`."""
        node = WithoutAnnotations().visit(copy.deepcopy(node))
        for name in sorted(needed_names(node)):
            self.provide(name)
        try:
            exec(compile(ast.Module([node], []), str(self.path), "exec", dont_inherit=True), self.namespace, target)
        except Exception as error:
            raise NotStaticError(f"{self.path}:{node.lineno}: {error}") from error

    def config_of(self, node: ast.ClassDef) -> type | None:
        """The `Config` of a class defined here, its own or that of its nearest base."""
        own = own_config(node)
        if own is not None:
            bound: dict[str, Any] = {}
            self.run(own, bound)
            bound["Config"].__qualname__ = f"{node.name}.Config"
            return bound["Config"]
        for source, base in self.bases(node):
            found = source.config_of(base)
            if found is not None:
                return found
        return None

    def bases(self, node: ast.ClassDef) -> list[tuple[SourceFile, ast.ClassDef]]:
        """The base classes whose source can be found."""
        found = []
        for expression in node.bases:
            target = self.absolute(expression.value if isinstance(expression, ast.Subscript) else expression)
            try:
                found += [find_class(target)] if target else []
            except LookupError:
                continue
        return [(source, base) for source, base in found if base is not node]

    def absolute(self, expression: ast.expr) -> str:
        """The dotted path that `Name` or `module.Name` stands for in this file; empty when it is something else."""
        head, _, rest = ast.unparse(expression).partition(".")
        node = self.statements.get(head)
        if isinstance(node, ast.Import | ast.ImportFrom):
            head = self.import_target(head, node)
        elif node is not None:
            head = f"{self.dotted}.{head}"
        dotted = f"{head}.{rest}" if rest else head
        return dotted if "." in dotted and all(part.isidentifier() for part in dotted.split(".")) else ""


def bound_names(node: ast.stmt) -> list[str]:
    """Names that a statement binds."""
    match node:
        case ast.ClassDef() | ast.FunctionDef():
            return [node.name]
        case ast.Import() | ast.ImportFrom():
            return [alias.asname or alias.name.partition(".")[0] for alias in node.names]
        case ast.Assign():
            return [target.id for target in node.targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


def flattened(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Top-level statements, with those under `if TYPE_CHECKING` and in `try`."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try):
            yield from flattened([*node.body, *node.orelse])


def own_config(node: ast.ClassDef) -> ast.stmt | None:
    """The statement in a class body that binds `Config`."""
    return next((statement for statement in node.body if "Config" in bound_names(statement)), None)


def needed_names(node: ast.AST) -> set[str]:
    """Names that a statement reads and does not bind itself."""
    read, bound = set(), set()
    for child in ast.walk(node):
        if isinstance(child, ast.Name):
            (read if isinstance(child.ctx, ast.Load) else bound).add(child.id)
        elif isinstance(child, ast.arg):
            bound.add(child.arg)
        elif isinstance(child, ast.stmt):
            bound.update(bound_names(child))
    return read - bound


def find_class(class_path: str) -> tuple[SourceFile, ast.ClassDef]:
    """Where a class is defined, following re-exports.

    Raises:
        NoSuchClassError: no such module, or the module has no such name.
        NotStaticError: the name is there but is made in another way than by `class`.
    """
    module, _, name = class_path.rpartition(".")
    for _ in range(32):
        if not module or not name.isidentifier():
            raise NoSuchClassError(f"{class_path!r} is not of the form package.module.Class")
        source = source_file(module)
        node = source.statements.get(name)
        if isinstance(node, ast.ClassDef):
            return source, node
        if node is None:
            raise NoSuchClassError(f"{source.path.name} of module {module!r} defines no class {name!r}")
        if not isinstance(node, ast.ImportFrom):
            break
        module, _, name = source.import_target(name, node).rpartition(".")
    raise NotStaticError(f"{class_path} is not defined by a class statement")


def config_class(class_path: str) -> type | None:
    """The nested dataclass `Config` of a class, or None when neither it nor a base of it has one.

    Args:
        class_path: dotted path of the class.

    Returns:
        A dataclass equal in fields and checks to the one that an import would give (not the same object).

    Raises:
        NoSuchClassError: the path leads nowhere.
        NotStaticError: the module has to be imported to know.
    """
    source, node = find_class(class_path)
    return source.config_of(node)
