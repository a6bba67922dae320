"""The rooms of the package and the arrows between them, read from its imports."""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "jdna_cli"
WIDTH = 720  # of the drawing
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


def reduced(arrows: Counter[tuple[str, str]]) -> list[tuple[str, str]]:
    """The arrows that no way through other rooms implies, the ground floor's left out."""
    ways: dict[str, set[str]] = {}
    for one, other in arrows:
        if other != GROUND:
            ways.setdefault(one, set()).add(other)

    def below(room: str) -> set[str]:
        return set().union(*({other} | below(other) for other in ways.get(room, ())))

    return sorted(
        (one, other)
        for one, others in ways.items()
        for other in others
        if not any(other in below(between) for between in others - {other})
    )


def drawn(arrows: Counter[tuple[str, str]]) -> str:
    """The rooms as an SVG, the longest way down as a spine."""
    lines = reduced(arrows)
    names = {room for pair in lines for room in pair}

    def height(room: str) -> int:
        return max((1 + height(b) for a, b in lines if a == room), default=0)

    def way_down(room: str) -> list[str]:
        below = [b for a, b in lines if a == room]
        return [room, *(max(map(way_down, sorted(below)), key=len) if below else [])]

    spine = max((way_down(room) for room in sorted(names)), key=len)
    beside = sorted(names - set(spine), key=lambda room: (-height(room), room))
    top = len(spine) - 1
    columns = {room: (63, 86)[(i + 1) % 2] for i, room in enumerate(beside)} | dict.fromkeys(
        spine, 30
    )
    middle = {
        room: (WIDTH * x // 100, 40 + 68 * (top - height(room))) for room, x in columns.items()
    }
    tall = 68 * (top + 1) + 92
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {tall}" '
        'font-family="sans-serif" font-size="15" text-anchor="middle">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        '<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#5b6770"/></marker></defs>',
    ]
    for one, other in lines:
        (x, y), (u, v) = middle[one], middle[other]
        # A long arrow goes down beside the spine.
        one_down = v - y <= 68
        first = f"{x},{(y + v) / 2}" if one_down else f"{u},{y + 44}"
        second = f"{u},{(y + v) / 2}" if one_down else f"{u},{y + 110}"
        parts.append(
            f'<path d="M{x},{y + 20} C{first} {second} {u},{v - 21}" fill="none" '
            'stroke="#5b6770" marker-end="url(#tip)"/>'
        )
    boxes = [(x, y, room, 120) for room, (x, y) in sorted(middle.items())]
    boxes.append((WIDTH // 2, tall - 32, f"{GROUND}: every room may use it", WIDTH - 80))
    for x, y, text, wide in boxes:
        parts.append(
            f'<rect x="{x - wide // 2}" y="{y - 20}" width="{wide}" height="40" rx="6" '
            f'fill="#e8f0f6" stroke="#2b5c7e"/><text x="{x}" y="{y + 5}" fill="#16303f">'
            f"{text}</text>"
        )
    return "\n".join([*parts, "</svg>", ""])


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
