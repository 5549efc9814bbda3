"""No module imports itself by way of others, and `gptdynamics` does not import `simulator`."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("gptdynamics", "simulator")
TRAVELS = ROOT / "simulator" / "model"
TRAVELS_WITH = {"numpy", "safetensors", "torch", "transformers"}
# Circles that are still to be mended, each by its sorted modules.
EXPECTED: set[tuple[str, ...]] = set()


def module_files() -> dict[str, Path]:
    """Every module of both packages, by its dotted name."""
    files = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when a module is imported; those for type checkers alone do not."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If):
            for_types = "TYPE_CHECKING" in ast.unparse(statement.test)
            yield from top_level(statement.orelse if for_types else [*statement.body, *statement.orelse])
        elif isinstance(statement, ast.Try):
            yield from top_level([*statement.body, *statement.orelse, *statement.finalbody])
            for handler in statement.handlers:
                yield from top_level(handler.body)


def imported_names(name: str, is_package: bool, statements: Iterator[ast.AST]) -> Iterator[str]:
    """Dotted names that import statements ask for; of `from a import b` both `a.b` and `a`."""
    for statement in statements:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            base = statement.module or ""
            if statement.level:
                parts = name.split(".")
                above = parts[: len(parts) - statement.level + is_package]
                base = ".".join([*above, *([base] if base else [])])
            yield from (f"{base}.{alias.name}" for alias in statement.names)
            yield base


def import_graph(modules: dict[str, Path]) -> dict[str, set[str]]:
    """Which modules each module imports when it is imported."""
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        asked = set(imported_names(name, path.name == "__init__.py", top_level(tree.body)))
        # `from package import module` asks for the module, not for what else the package's own file imports.
        packages = {each.rpartition(".")[0] for each in asked if each in modules}
        direct = {each for each in asked if each in modules and each != name}
        graph[name] = {each for each in direct if each not in packages or modules[each].name != "__init__.py"}
    return graph


def circles(graph: dict[str, set[str]]) -> set[tuple[str, ...]]:
    """Sets of modules that reach each other."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(graph[start])
        while waiting:
            each = waiting.pop()
            if each not in seen:
                seen.add(each)
                waiting += graph[each]
        return seen

    reach = {name: reached(name) for name in graph}
    return {
        tuple(sorted(other for other in reach[name] if name in reach[other])) for name in graph if name in reach[name]
    }


def test_a_circle_is_noticed() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == {("a", "b", "c")}
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == set()


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert circles(import_graph(module_files())) == EXPECTED


def test_gptdynamics_does_not_import_simulator() -> None:
    wrong = []
    for name, path in module_files().items():
        if name.split(".")[0] != "gptdynamics":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        asked = imported_names(name, path.name == "__init__.py", ast.walk(tree))
        wrong += [f"{name} imports {each}" for each in asked if each.split(".")[0] == "simulator"]
    assert wrong == []


@pytest.mark.parametrize("path", sorted(TRAVELS.glob("*.py")), ids=lambda path: path.name)
def test_what_travels_with_a_model_imports_only_its_own_folder(path: Path) -> None:
    for statement in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(statement, ast.ImportFrom) and statement.level:
            assert statement.level == 1 and statement.module and (TRAVELS / f"{statement.module}.py").is_file()
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            names = imported_names("simulator.model", True, iter([statement]))
            roots = {each.split(".")[0] for each in names}
            assert roots <= TRAVELS_WITH | set(sys.stdlib_module_names), f"line {statement.lineno}: {roots}"
