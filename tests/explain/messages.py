"""The messages that the code can give, from its source: none is added past the handbook."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from types import ModuleType

from gpus import contradictions, demand, misspelt, wishes
from webhook import containers, faults, forged

#: Modules whose yielded texts, and texts of raised errors, end in a refusal or a warning.
MODULES: tuple[ModuleType, ...] = (
    faults, misspelt, contradictions, wishes, demand, forged, containers,
)  # fmt: skip
#: Calls and statements that carry a message.
_CALLS = ("_Fault", "ValueError", "append")
_SHORTEST = 12


def templates() -> list[str]:
    """Every message, with `…` in place of what depends on the pod."""
    found = [text for module in MODULES for text in _of(module)]
    return [text for text in dict.fromkeys(found) if len(longest_part(text)) >= _SHORTEST]


def longest_part(template: str) -> str:
    """The longest piece of a message that is always the same."""
    return max((part.strip() for part in template.split("…")), key=len)


def _of(module: ModuleType) -> Iterator[str]:
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Yield) and node.value is not None:
            yield from _text(node.value)
        elif isinstance(node, ast.Call) and _name(node) in _CALLS and node.args:
            yield from _text(node.args[0])
        elif isinstance(node, ast.FunctionDef) and node.name == "memory_fault":
            for each in ast.walk(node):
                if isinstance(each, ast.Return) and each.value is not None:
                    yield from _text(each.value)


def _name(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name):
            return name
        case ast.Attribute(attr=name):
            return name
    return ""


def _text(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts
            )
