"""The rooms of the package and the arrows between them, read from its imports."""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "jdna_cli"
GROUND = "ground floor"  # small files that everybody may use


@dataclass(frozen=True)
class Room:
    """One folder of the package, or its small files together."""

    name: str
    says: str
    files: int
    lines: int


def modules() -> dict[str, Path]:
    """Every file of the package by its dotted name."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = [PACKAGE.name, *file.relative_to(PACKAGE).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def room_of(module: str) -> str:
    """The room that a module stands in."""
    parts = module.split(".")
    if parts[1:] in (["workspace"], ["__main__"]):
        return {"workspace": "workspace", "__main__": "cli"}[parts[1]]
    inside = len(parts) > 1 and (PACKAGE / parts[1]).is_dir()
    return parts[1] if inside else GROUND


def imports(file: Path, known: set[str]) -> set[str]:
    """Modules of the package that a file imports, for its types alone left out."""
    found: set[str] = set()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
        else:
            continue
        found |= {name for name in names if name in known and name != PACKAGE.name}
    return found


def graph() -> tuple[list[Room], Counter[tuple[str, str]]]:
    """All rooms, and how many imports go from one to another."""
    known = modules()
    files: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    arrows: Counter[tuple[str, str]] = Counter()
    for name, file in known.items():
        room = room_of(name)
        files[room] += 1
        lines[room] += len(file.read_text(encoding="utf-8").splitlines())
        for other in imports(file, set(known)):
            if room_of(other) != room:
                arrows[room, room_of(other)] += 1
    rooms = []
    for room in files:
        own = PACKAGE / room / "__init__.py"
        told = GROUND if room == GROUND else _says(own if own.is_file() else PACKAGE / f"{room}.py")
        rooms.append(Room(room, told, files[room], lines[room]))
    return sorted(rooms, key=lambda one: one.name), arrows


def _says(file: Path) -> str:
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def circles(arrows: Counter[tuple[str, str]]) -> list[tuple[str, str]]:
    """Pairs of rooms of which each imports the other, at once or through others."""
    reach: dict[str, set[str]] = {}
    for one, other in arrows:
        reach.setdefault(one, set()).add(other)
    changed = True
    while changed:
        changed = False
        for seen in reach.values():
            more = set().union(*(reach.get(other, set()) for other in seen)) - seen
            if more:
                seen |= more
                changed = True
    return sorted({(a, b) for a in reach for b in reach[a] if a < b and a in reach.get(b, set())})


def longest(kind: type[ast.AST]) -> list[tuple[int, str]]:
    """Functions, or classes, by their number of lines, the longest first."""
    found = []
    for name, file in modules().items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, kind) and isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.append(((node.end_lineno or 0) - node.lineno + 1, f"{name}.{node.name}"))
    return sorted(found, reverse=True)


def main() -> None:
    """Print how large everything is."""
    rooms, arrows = graph()
    total = sum(room.lines for room in rooms)
    for room in sorted(rooms, key=lambda one: -one.lines):
        print(f"{room.name:14}{room.files:4} files {room.lines:6,} lines {room.lines / total:4.0%}")
    print(f"{len(arrows)} arrows between rooms, {sum(arrows.values())} imports")
    files = [(len(p.read_text(encoding="utf-8").splitlines()), n) for n, p in modules().items()]
    for what, found in (("files", sorted(files, reverse=True)),
                        ("functions", longest(ast.FunctionDef)),
                        ("classes", longest(ast.ClassDef))):  # fmt: skip
        print(f"longest {what}: " + ", ".join(f"{name} {lines}" for lines, name in found[:4]))


if __name__ == "__main__":
    main()
