"""Fills the part of docs/providers.md that follows from the catalogue of providers: `python -m docs.catalogue`.

`--check` writes nothing and exits 1 when the page is stale; `make check` runs it so.
"""

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from aiserver.providers.catalogue import CATALOGUE, Preset
from docs.generate import write

PAGE = Path(__file__).parent / "providers.md"
SHORT = {"chat.completions": "chat"}


def main(arguments: list[str]) -> int:
    parts = [rows(CATALOGUE.items()), "What is not like OpenAI there, and where that is written:", quirks()]
    return write(PAGE, "docs/catalogue.py", parts, arguments)


def rows(presets: Iterable[tuple[str, Preset]]) -> str:
    """A row for each preset."""
    head = "| preset | | `base_url` | key in | operations | lists models | asked for a stream's usage | queue |"
    return "\n".join([head, "|---" * 8 + "|", *(_row(name, row) for name, row in presets)])


def quirks() -> str:
    """A line for each."""
    told = [(name, quirk) for name, row in CATALOGUE.items() for quirk in row.quirks]
    return "\n".join(f"- `{name}`: {quirk.text} ([{_kind(quirk.source)}]({quirk.source}))" for name, quirk in told)


def _kind(source: str) -> str:
    """What a source is called: a thread is what somebody met there, and no vendor's promise."""
    is_thread = re.search(r"/(issues|pull|discussions)/\d+$|^https://discuss\.", source)
    return "by others' reports" if is_thread else "source"


def _row(name: str, row: Preset) -> str:
    operations = ", ".join(SHORT.get(operation, operation) for operation in row.operations)
    cells = [
        f"`{name}`",
        f"[{row.title}]({row.source})",
        f"`{row.base_url}`",
        f"`{row.auth_header}`",
        operations,
        "yes" if row.lists_models else "no",
        f"yes ([{_kind(row.stream_usage)}]({row.stream_usage}))" if row.stream_usage else "no",
        row.queue,
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
