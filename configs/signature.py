"""Arguments of a constructor, read from its source: how third-party classes are checked without importing them."""

from __future__ import annotations

import ast
import builtins
import typing
from typing import Any

from configs.static import find_class


class AnyByDefault(dict):
    """Names for evaluating an annotation: what is not known here allows everything."""

    def __missing__(self, name: str) -> Any:
        """Stand in for a type that only an import would give."""
        return Any


def signature(class_path: str) -> dict[str, Any] | None:
    """Arguments of a class's constructor, by its source.

    Returns:
        Name -> type, `Any` where the type is not a plain one; None when the constructor takes arbitrary keywords or is
        not in sight.

    Raises:
        NoSuchClassError: the path leads nowhere.
        NotStaticError: the module has to be imported to know.
    """
    source, node = find_class(class_path)
    for _ in range(32):
        init = next((s for s in node.body if isinstance(s, ast.FunctionDef) and s.name == "__init__"), None)
        bases = source.bases(node)
        if init is not None or not bases:
            break
        source, node = bases[0]
    if init is None or init.args.kwarg is not None:
        return None
    names = AnyByDefault({**vars(builtins), **vars(typing)})
    arguments = [*init.args.posonlyargs, *init.args.args][1:]  # without self
    return {argument.arg: evaluated(argument.annotation, names) for argument in [*arguments, *init.args.kwonlyargs]}


def evaluated(annotation: ast.expr | None, names: AnyByDefault) -> Any:
    """The type that an annotation names, `Any` where that cannot be told."""
    if annotation is None:
        return Any
    try:
        return eval(compile(ast.Expression(annotation), "<annotation>", "eval"), {"__builtins__": {}}, names)
    except Exception:
        return Any
