"""The fields of every route with a body, as the guide to the server lists them; run it to write them there."""

from __future__ import annotations

import re
from pathlib import Path

GUIDE = Path(__file__).resolve().parent.parent / "docs" / "guides" / "server.md"
BEGIN, END = "<!-- fields: tools/server_fields.py -->\n", "<!-- end of fields -->\n"


def table() -> str:
    """A Markdown table made from the types that decode the bodies."""
    from tokamak.server.app import OPERATIONS

    lines = ["| route | fields | accepted, without effect |", "|---|---|---|"]
    rows: dict[type, list[str]] = {}
    for path, _, body, *_ in OPERATIONS:
        if body is not None:
            rows.setdefault(body, []).append(f"`{path}`")
    for body, paths in rows.items():
        others = {meant: name for name, meant in body.aliases.items()}
        fields = (f"`{n}`" + (f" (`{others[n]}`)" if n in others else "") for n in body.__struct_fields__)
        idle = ", ".join(f"`{name}`" for name in sorted(body.unused))
        idle += " and every unknown one" if body.lenient else ""
        lines.append(f"| {', '.join(paths)} | {', '.join(fields)} | {idle.strip()} |")
    return "\n".join(lines) + "\n"


def written() -> str:
    """The guide with the table as it should be."""
    text = GUIDE.read_text(encoding="utf-8")
    return re.sub(f"(?<={re.escape(BEGIN)}).*?(?={re.escape(END)})", lambda _: table(), text, flags=re.DOTALL)


if __name__ == "__main__":
    GUIDE.write_text(written(), encoding="utf-8")
