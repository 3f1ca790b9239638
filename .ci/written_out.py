"""Write out, in the copy of the sources that mypyc compiles, what it does not see by itself.

It leaves a class with a decorator of ours an ordinary one, and calls the ``__init__`` that
``dataclass`` makes in the interpreter: an object of three fields costs 0.25 us so, 0.86 if it is
frozen, and 0.06 with an ``__init__`` that stands in the class. It looks a module's constants up by
name, unless they are ``Final``: 7 % of a datagram's time. Nobody should have to write all that by
hand, nor read it. Each line keeps its number, so that tracebacks are right.
"""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import dataclass
from itertools import takewhile

_IMPORT = "from dataclasses import dataclass as _written_out; from typing import Final as _Fixed"
_ADDED = {"slots", "frozen", "unsafe_hash"}
_KEY = 3  # fields at most: more code in larger ones would be for nothing


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    kind: str
    default: str  # "" for none
    factory: str  # "" for none

    @property
    def parameter(self) -> str:
        if self.factory:
            return f"{self.name}: {self.kind} | None = None"
        return f"{self.name}: {self.kind}" + (f" = {self.default}" if self.default else "")

    @property
    def assignment(self) -> str:
        if self.factory:
            return f"self.{self.name} = {self.factory}() if {self.name} is None else {self.name}"
        return f"self.{self.name} = {self.name}"


def write_out(source: str) -> str:
    """Return a module's source with what can be written out in it written out."""
    tree = ast.parse(source)
    lines = source.splitlines()
    stored = Counter(
        one.id
        for one in ast.walk(tree)
        if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)
    )
    changed = 0
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            changed += _write_class_out(node, lines)
        elif isinstance(node, ast.Assign):
            changed += _fix(node, stored, lines)
    if not changed:
        return source
    first = next((one for one in tree.body if _is_import(one)), None)
    if first is None:
        return source
    lines[first.lineno - 1] = f"{_IMPORT}; {lines[first.lineno - 1]}"
    return "\n".join(lines) + "\n"


def _fix(node: ast.Assign, stored: Counter[str], lines: list[str]) -> bool:
    """Say of a constant that it is one: no use of it looks it up in the module by its name then."""
    target, *others = node.targets
    if others or not isinstance(target, ast.Name) or stored[target.id] > 1:
        return False
    if not _is_fixed(node.value):
        return False
    row, end = target.lineno - 1, target.end_col_offset
    lines[row] = f"{lines[row][:end]}: _Fixed{lines[row][end:]}"
    return True


def _is_fixed(value: ast.expr) -> bool:
    """Tell whether a constant is a number or a struct; of text the checker would know too much."""
    match value:
        case ast.Constant(int() | float()):
            return True
        case ast.UnaryOp(operand=operand):
            return _is_fixed(operand)
        case ast.BinOp(left=left, right=right):
            return _is_fixed(left) and _is_fixed(right)
        case ast.Call(func=ast.Attribute(value=ast.Name("struct"), attr="Struct")):
            return True
        case ast.Attribute(value=ast.Name(), attr="size"):
            return True
    return False


def _write_class_out(node: ast.ClassDef, lines: list[str]) -> bool:
    """Write a class out in its own lines; tell whether that was possible."""
    if node.bases or len(node.decorator_list) != 1 or not _is_text(node.body[0]):
        return False
    is_value = _is_value(node.decorator_list[0])
    methods = {one.name for one in node.body if isinstance(one, ast.FunctionDef)}
    if is_value is None or methods & {"__init__", "__eq__", "__hash__"}:
        return False
    head = list(takewhile(_is_of_field, node.body))
    declared = [one for one in head if isinstance(one, ast.AnnAssign)]
    fields = [field for one in declared if (field := _field(one)) is not None]
    if len(fields) < sum(isinstance(one, ast.AnnAssign) for one in node.body):
        return False
    has_check = "__post_init__" in methods
    written = _methods(node.name, fields, is_value=is_value, has_check=has_check)
    title = ast.literal_eval(head[0].value).split("\n")[0]  # type: ignore[attr-defined]
    wanted = ["; ".join([repr(title), *map(ast.unparse, declared)]), *written]
    start, end = head[0].lineno - 1, head[-1].end_lineno or 0
    if end < len(lines) and not lines[end].strip():
        end += 1
    if len(wanted) > end - start:
        return False
    has_hash = is_value and not _is_key(fields, is_value=is_value)
    lines[node.decorator_list[0].lineno - 1] = (
        f"@_written_out(init={not written}{', unsafe_hash=True' if has_hash else ''})"
    )
    lines[start:end] = [f"    {one}" for one in wanted] + [""] * (end - start - len(wanted))
    return True


def _is_import(node: ast.stmt) -> bool:
    """Tell whether a line is one before which another import may stand."""
    return isinstance(node, ast.Import) or (
        isinstance(node, ast.ImportFrom) and node.module != "__future__"
    )


def _is_value(decorator: ast.expr) -> bool | None:
    """Tell whether a decorator makes a value, with a hash; None if it is not one of ours."""
    if isinstance(decorator, ast.Name):
        return True if decorator.id == "value" else None
    if not (
        isinstance(decorator, ast.Call)
        and isinstance(decorator.func, ast.Name)
        and decorator.func.id == "dataclass"
    ):
        return None
    given = {one.arg for one in decorator.keywords}
    if not given <= _ADDED:
        return None
    return bool(given & {"frozen", "unsafe_hash"})


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _is_key(fields: list[_Field], *, is_value: bool) -> bool:
    """Tell whether a class gets a comparison and a hash of its own: what is a key is small."""
    return is_value and 0 < len(fields) <= _KEY


def _is_of_field(node: ast.stmt) -> bool:
    return isinstance(node, ast.AnnAssign) or _is_text(node)


def _field(node: ast.AnnAssign) -> _Field | None:
    """Return what is declared; None for what is not understood here."""
    name, kind = ast.unparse(node.target), ast.unparse(node.annotation)
    if kind == "object" or kind.startswith(("ClassVar", "InitVar")):
        return None
    default = node.value
    if not (isinstance(default, ast.Call) and isinstance(default.func, ast.Name)):
        return _Field(name, kind, ast.unparse(default) if default else "", "")
    if default.func.id != "field":
        return _Field(name, kind, ast.unparse(default), "")
    given = {one.arg: one.value for one in default.keywords}
    factory = given.get("default_factory")
    if len(given) != 1 or not isinstance(factory, ast.Name) or "None" in kind:
        return None
    return _Field(name, kind, "", factory.id)


def _methods(name: str, fields: list[_Field], *, is_value: bool, has_check: bool) -> list[str]:
    if not fields:
        return []
    steps = [one.assignment for one in fields] + (["self.__post_init__()"] if has_check else [])
    written = [
        f"def __init__(self, {', '.join(one.parameter for one in fields)}) -> None: "
        + "; ".join(steps)
    ]
    if _is_key(fields, is_value=is_value):
        same = " and ".join(f"self.{one.name} == other.{one.name}" for one in fields)
        all_fields = "".join(f"self.{one.name}, " for one in fields)
        written += [
            f"def __eq__(self, other: object) -> bool: return isinstance(other, {name}) and {same}",
            f"def __hash__(self) -> int: return hash(({all_fields}))",
        ]
    return written
