"""Fills the part of docs/providers.md that says what each vendor has words for: `python -m docs.vendors`.

`--check` writes nothing and exits 1 when the page is stale; `make check` runs it so.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from aiserver.providers.catalogue import BY_TYPE
from aiserver.providers.registry import load_adapter
from aiserver.providers.translation.capabilities import Capabilities, Mapped, PassThrough, Rule, Unsupported
from docs.generate import write

PAGE = Path(__file__).parent / "providers.md"


def main(arguments: list[str]) -> int:
    return write(PAGE, "docs/vendors.py", [table([load_adapter(type).capabilities for type in BY_TYPE])], arguments)


def table(vendors: Sequence[Capabilities]) -> str:
    """A row for each member of a request, a column for each vendor."""
    members = list(dict.fromkeys(member for words in vendors for member in words.rules))
    head = f"| | {' | '.join(words.vendor for words in vendors)} |"
    rows = [_row(member, [words.rules.get(member) for words in vendors]) for member in members]
    return "\n".join([head, "|---" * (len(vendors) + 1) + "|", *rows])


def _row(member: str, rules: Sequence[Rule | None]) -> str:
    name, _, where = member.partition(" ")
    cells = [f"`{name.rstrip(':')}` {where}".rstrip(), *map(_cell, rules)]
    return f"| {' | '.join(cells)} |"


def _cell(rule: Rule | None) -> str:
    match rule:
        case PassThrough(to, words):
            return f"passes, as `{to}`" + (f": {words}" if words else "")
        case Mapped(words):
            return words
        case Unsupported(words, unless):
            but = f", but {' and '.join(f'`{text}`' for text in unless)}" if unless else ""
            return f"**refused**{but}" + (f": {words}" if words else "")
        case None:
            return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
