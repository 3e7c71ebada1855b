"""The authors' config files are Python. This reads the literals that one assigns, from its syntax tree.

Nothing is run: what is no literal is refused with its line.
"""

import ast
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from codistill.errors import InputError, one_line

LARGEST_FILE = 100_000
DEEPEST = 20


@dataclass(frozen=True)
class Entry:
    """A literal and the line it stands in; a `dict(...)` holds further entries by name.

    Other values are None, numbers, text, true, false and lists of these.
    """

    value: Any
    line: int


def read_literals(file: Path) -> dict[str, Entry]:
    """Return what a Python file of nothing but assigned literals assigns, by name.

    Raises:
        InputError: The file cannot be read, is no Python, or holds anything else.
    """
    statements = _parse(file).body
    found: dict[str, Entry] = {}
    for statement in statements:
        if isinstance(statement, ast.Expr) and _is_text(statement.value):
            continue  # A docstring, or text that serves as a comment.
        if not isinstance(statement, ast.Assign):
            _refuse(file, statement, "only NAME = value may stand here, since the file is read, not run")
        names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
        if len(names) != 1 or len(statement.targets) != 1:
            _refuse(file, statement, "a value must be assigned to one plain name")
        if names[0] in found:
            _refuse(file, statement, f"{names[0]} is assigned a second time")
        found[names[0]] = Entry(_value(file, statement.value, DEEPEST), statement.lineno)
    return found


def _parse(file: Path) -> ast.Module:
    try:
        content = file.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{file}: is no text in UTF-8") from None
    if len(content) > LARGEST_FILE:
        raise InputError(f"{file}: is {len(content):,} bytes long, which no config file is")
    try:
        with warnings.catch_warnings():  # Of odd escapes in text.
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except SyntaxError as error:
        where = f"{file} line {error.lineno}" if error.lineno else str(file)
        raise InputError(f"{where}: is no Python: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError):
        raise InputError(
            f"{file}: is no Python that can be read: too large a number, or nested too deep"
        ) from None


def _value(file: Path, node: ast.expr, depth: int) -> Any:
    if depth == 0:
        _refuse(file, node, "values are nested too deep")
    match node:
        case ast.Constant(value=None | bool() | int() | float() | str() as constant):
            return constant
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)) if (
            type(number) is not bool
        ):
            return -number
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value(file, item, depth - 1) for item in items]
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords):
            pairs = [(keyword.arg, keyword.value) for keyword in keywords]
        case ast.Dict(keys=keys, values=values):
            pairs = [(_key(key), value) for key, value in zip(keys, values, strict=True)]
        case _:
            _refuse(
                file,
                node,
                "is no number, text, True, False, None, list or dict(...), and the file is read, not run",
            )
    entries: dict[str, Entry] = {}
    for name, item in pairs:
        if name is None:
            _refuse(file, item, "a dict must be written as name=value")
        if name in entries:
            _refuse(file, item, f"{name} stands here a second time")
        entries[name] = Entry(_value(file, item, depth - 1), item.lineno)
    return entries


def _key(node: ast.expr | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _refuse(file: Path, node: ast.stmt | ast.expr, reason: str) -> NoReturn:
    try:
        code = one_line(ValueError(ast.unparse(node)), 60)
    except (ValueError, RecursionError):
        code = "this"
    raise InputError(f"{file} line {node.lineno}: {reason}: {code}")
