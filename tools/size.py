"""Print lines of code per area against the budgets of docs/design/house.md; exit 1 over budget."""

from __future__ import annotations

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "tokamak"
BUDGETS = {  # raised where a row of docs/adr/0009-budgets.md says why
    "ir": 1100,
    "nn.py": 400,
    "loaders": 5200,
    "loaders/names": 3400,
    "tokenizers": 6400,
    "sampling": 1900,
    "engine": 7000,
    "executors": 2000,
    "server": 6800,
    "cli": 3400,
    "compat": 3200,
    "hub+observe+bench": 4500,
    "native": 25500,
}
# Of the models folder: what families share. Every other file there is a family.
SHARED = {"__init__.py", "config.py", "moe.py", "rope.py"}
FAMILY_LIMIT = 120
LIMIT = {".py": 500, ".h": 500, ".cpp": 500, ".inl": 700}


def lines(path: pathlib.Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def is_generated(path: pathlib.Path) -> bool:
    """A table that a tool writes, which nobody reads: the budgets are about what people read."""
    with path.open(encoding="utf-8") as f:
        return f.readline().startswith("// Made by tools/")


def files(area: str) -> list[pathlib.Path]:
    if area == "native":
        return [p for p in (ROOT / "native").rglob("*") if p.suffix in LIMIT and not is_generated(p)]
    roots = [PACKAGE / name for name in area.split("+") if (PACKAGE / name).exists()]
    apart = {PACKAGE / name for name in BUDGETS if name.startswith(f"{area}/")}
    found = [p for root in roots for p in ([root] if root.is_file() else sorted(root.rglob("*.py")))]
    return [p for p in found if not apart & set(p.parents)]


def main() -> int:
    over = 0
    for area, budget in BUDGETS.items():
        total = sum(lines(p) for p in files(area))
        over += total > budget
        print(f"{area:<20}{total:>7} of {budget:>6}{'   OVER' if total > budget else ''}")
    for path in sorted((PACKAGE / "models").glob("*.py")):
        if path.name not in SHARED and lines(path) > FAMILY_LIMIT:
            over += 1
            print(f"{path.relative_to(ROOT)}: {lines(path)} lines, limit {FAMILY_LIMIT}")
    for path in (*PACKAGE.rglob("*.py"), *files("native")):
        if lines(path) > LIMIT[path.suffix]:
            over += 1
            print(f"{path.relative_to(ROOT)}: {lines(path)} lines, limit {LIMIT[path.suffix]}")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
