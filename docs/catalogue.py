"""Generates the table of provider presets in docs/providers.md: `python -m docs.catalogue`.

`--check` writes nothing and exits 1 when the page is stale; used by `make check`.
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
    parts = [preset_table(CATALOGUE.items()), "Differences from OpenAI, with sources:", quirk_list()]
    return write(PAGE, "docs/catalogue.py", parts, arguments)


def preset_table(presets: Iterable[tuple[str, Preset]]) -> str:
    """One row for each preset."""
    head = "| preset | provider | `base_url` | API key header | operations | lists models | stream usage | queue |"
    return "\n".join([head, "|---" * 8 + "|", *(_row(name, preset) for name, preset in presets)])


def quirk_list() -> str:
    """One line for each quirk."""
    quirks = [(name, quirk) for name, preset in CATALOGUE.items() for quirk in preset.quirks]
    return "\n".join(f"- `{name}`: {quirk.text} ([{_label(quirk.source)}]({quirk.source}))" for name, quirk in quirks)


def _label(source: str) -> str:
    """The link text of a source. A thread is a user report, not documentation of the vendor."""
    is_thread = re.search(r"/(issues|pull|discussions)/\d+$|^https://discuss\.", source)
    return "user report" if is_thread else "source"


def _row(name: str, preset: Preset) -> str:
    operations = ", ".join(SHORT.get(operation, operation) for operation in preset.operations)
    cells = [
        f"`{name}`",
        f"[{preset.title}]({preset.source})",
        f"`{preset.base_url}`",
        f"`{preset.auth_header}`",
        operations,
        "yes" if preset.lists_models else "no",
        f"yes ([{_label(preset.stream_usage)}]({preset.stream_usage}))" if preset.stream_usage else "no",
        preset.queue,
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
