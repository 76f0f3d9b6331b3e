"""Write the blocking twin of the library: `python -m tests.house.blocking_twin`."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

CLIENT = Path(__file__).parents[2] / "client" / "phalanx_client"
TWIN = CLIENT / "blocking_client.py"

SOURCES = {
    "BlockingClient": (
        ("session.py", "Client"),
        ("clusters.py", "Clusters"),
        ("exchange.py", "Exchange"),
    ),
    "BlockingSession": (("handle.py", "Session"),),
}
TWINS = {"Client": "BlockingClient", "Session": "BlockingSession"}
LOOP_ONLY = {"read_archive", "accepted"}
"""What gives a reply whose body is still on the wire."""

HEAD = '''"""The blocking twin of the library, for scripts and notebooks.

Made from `session.py` and `handle.py` by `python -m tests.house.blocking_twin`; a test fails when
they differ. See there for what each does.
"""

from __future__ import annotations

{imports}


'''


def source() -> str:
    """Spell the whole module."""
    classes = [
        _twin(name, [_class(*place) for place in places]) for name, places in SOURCES.items()
    ]
    body = "\n\n".join(classes)
    text = HEAD.format(imports=_imports(body)) + body
    return _ruff(_ruff(text, "check", "--select=I,F401", "--fix"), "format")


def _ruff(text: str, *verb: str) -> str:
    command = [sys.executable, "-m", "ruff", *verb, "--quiet", "--stdin-filename", str(TWIN), "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def _class(file: str, name: str) -> ast.ClassDef:
    tree = ast.parse((CLIENT / file).read_text())
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)


def _twin(name: str, originals: list[ast.ClassDef]) -> str:
    first = originals[0]
    kind = first.name
    subject = kind.lower()
    lines = [
        f"class {name}:",
        f'    """`{kind}`, called without `await`."""',
        "",
        f"    def __init__(self, {subject}: {kind}) -> None:",
        f"        self._{subject} = {subject}",
        "",
        "    def __enter__(self) -> Self:",
        "        return self",
        "",
        "    def __exit__(self, *_: object) -> None:",
        f"        finish(self._{subject}.__aexit__())",
    ]
    for original in originals:
        for method in _methods(original):
            lines += ["", *_method(method, f"self._{subject}")]
    if kind == "Session":
        lines += [
            "",
            "    @property",
            "    def view(self) -> SessionView:",
            '        """As it was when it was last asked for."""',
            "        return self._session.view",
        ]
    return "\n".join(lines) + "\n"


def _methods(original: ast.ClassDef) -> Iterator[ast.AsyncFunctionDef | ast.FunctionDef]:
    functions = (ast.AsyncFunctionDef, ast.FunctionDef)
    for node in original.body:
        if not isinstance(node, functions) or node.name.startswith("_") or node.name in LOOP_ONLY:
            continue
        yield node


def _method(method: ast.AsyncFunctionDef | ast.FunctionDef, subject: str) -> list[str]:
    doc = (ast.get_docstring(method) or "").splitlines()
    asked = f"{subject}.{method.name}"
    if isinstance(method, ast.FunctionDef):  # a property
        assert method.returns is not None
        return [
            "    @property",
            f"    def {method.name}(self) -> {ast.unparse(method.returns)}:",
            *_docstring(doc),
            f"        return {asked}",
        ]
    assert method.returns is not None
    returns = ast.unparse(method.returns)
    call = f"{asked}({_passed(method.args)})"
    if returns.startswith("AsyncGenerator["):
        returns = f"Iterator[{returns.removeprefix('AsyncGenerator[').removesuffix(', None]')}]"
        call = f"iterate({call})"
    else:
        call = f"finish({call})"
    if returns in TWINS:
        returns = TWINS[returns]
        call = f"{returns}({call})"
    return [
        f"    def {method.name}({ast.unparse(method.args)}) -> {returns}:",
        *_docstring(doc),
        f"        {call if returns == 'None' else f'return {call}'}",
    ]


def _passed(arguments: ast.arguments) -> str:
    plain = [argument.arg for argument in arguments.args if argument.arg != "self"]
    named = [f"{argument.arg}={argument.arg}" for argument in arguments.kwonlyargs]
    return ", ".join(plain + named)


def _docstring(lines: list[str]) -> list[str]:
    if len(lines) == 1:
        return [f'        """{lines[0]}"""']
    return [
        f'        """{lines[0]}',
        *(f"        {line}".rstrip() for line in lines[1:]),
        '        """',
    ]


def _imports(body: str) -> str:
    """What the originals import and the twin names, too."""
    used = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)} - set(
        SOURCES
    )
    found = {
        "Iterator": "from collections.abc import Iterator",
        "Self": "from typing import Self",
        "finish": "from phalanx_client.blocking import finish",
        "iterate": "from phalanx_client.blocking import iterate",
        "Client": "from phalanx_client.session import Client",
        "Session": "from phalanx_client.handle import Session",
        "Until": "from phalanx_client.session import Until",
    }
    files = {place[0] for places in SOURCES.values() for place in places}
    for file in sorted(files):
        for node in ast.walk(ast.parse((CLIENT / file).read_text())):
            if isinstance(node, ast.Import):
                found |= {one.name: f"import {one.name}" for one in node.names}
            elif isinstance(node, ast.ImportFrom):
                found |= {
                    one.name: f"from {node.module} import {one.name}"
                    for one in node.names
                    if one.name not in found
                }
    return "\n".join(sorted({found[name] for name in used if name in found}))


if __name__ == "__main__":
    TWIN.write_text(source())
