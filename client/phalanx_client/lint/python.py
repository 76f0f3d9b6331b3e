"""What a Python program asks for, read off its syntax."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from phalanx_client.lint.found import Setting

_TRAINERS: Final = frozenset({"Trainer", "Fabric"})
_LOOPBACK: Final = ("127.", "localhost", "::1")
_ENDPOINT: Final = "tcp://"


@dataclass(frozen=True, slots=True)
class Trainer:
    """A Trainer or Fabric; None is what nobody can read off.

    Attributes:
        devices: processes per node.
        num_nodes: 1 where it is not given.
    """

    line: int
    devices: int | None
    num_nodes: int | None


@dataclass(slots=True)
class Program:
    """What is known of a program.

    Attributes:
        worlds: by line, numbers of ranks that are told to PyTorch.
        loopback: lines that bind or meet at an address that no other container reaches.
    """

    trainers: list[Trainer] = field(default_factory=list)
    settings: dict[str, Setting] = field(default_factory=dict)
    worlds: dict[int, int] = field(default_factory=dict)
    loopback: dict[int, str] = field(default_factory=dict)


def read(text: str) -> Program:
    """Read a program.

    Raises:
        SyntaxError: it is none.
        ValueError: it holds a NUL character.
        RecursionError: it is nested too deeply.
    """
    tree = ast.parse(text)
    known = dict(_constants(tree))
    program = Program()
    for node in ast.walk(tree):
        match node:
            case ast.Call():
                _call(node, known, program)
            case ast.Assign(targets=[ast.Subscript(value=where, slice=key)], value=value):
                if _dotted(where).endswith("environ"):
                    _set(key, value, node.lineno, program)
            case _:
                pass
    return program


def _constants(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Find the names of a module that are bound once, to a constant."""
    seen: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    seen.setdefault(target.id, []).append(node.value)
    for name, values in seen.items():
        if len(values) == 1:
            yield name, values[0]


def _call(node: ast.Call, known: Mapping[str, ast.expr], program: Program) -> None:
    name = _dotted(node.func)
    last = name.rpartition(".")[2]
    given = {word.arg: word.value for word in node.keywords if word.arg}
    if last in _TRAINERS:
        whole = all(word.arg for word in node.keywords)  # no **options
        devices = _count(given.get("devices"), known)
        nodes = _count(given["num_nodes"], known) if "num_nodes" in given else 1
        program.trainers.append(Trainer(node.lineno, devices, nodes if whole else None))
    elif last == "bind" and node.args and isinstance(node.args[0], ast.Tuple):
        _address(node.args[0].elts[0], known, program)
    elif last == "init_process_group":
        world = _count(given.get("world_size"), known)
        if world is not None:
            program.worlds[node.lineno] = world
        if "init_method" in given:
            _address(given["init_method"], known, program)
    elif name.endswith(("environ.setdefault", "os.putenv")) and len(node.args) == 2:
        _set(node.args[0], node.args[1], node.lineno, program)


def _address(node: ast.expr, known: Mapping[str, ast.expr], program: Program) -> None:
    value = _value(node, known)
    if isinstance(value, str) and value.removeprefix(_ENDPOINT).startswith(_LOOPBACK):
        program.loopback[node.lineno] = value


def _set(key: ast.expr, value: ast.expr, line: int, program: Program) -> None:
    name, text = _value(key, {}), _value(value, {})
    if isinstance(name, str) and isinstance(text, str):
        program.settings[name] = Setting(text, line)


def _count(node: ast.expr | None, known: Mapping[str, ast.expr]) -> int | None:
    """Read a number of devices or nodes as Lightning does; None for `auto`, -1 and what is not
    written down.
    """
    if isinstance(node, ast.List | ast.Tuple):
        return len(node.elts)
    value = _value(node, known) if node is not None else None
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    return value if isinstance(value, int) and value > 0 else None


def _value(node: ast.expr, known: Mapping[str, ast.expr]) -> object:
    if isinstance(node, ast.Name):
        node = known.get(node.id, node)
    return node.value if isinstance(node, ast.Constant) else None


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""
