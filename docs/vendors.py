"""Generates the table of request fields per vendor in docs/providers.md: `python -m docs.vendors`.

`--check` writes nothing and exits 1 when the page is stale; used by `make check`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from aiserver.providers.adapters.base.capabilities import Capabilities, Mapped, PassThrough, Rule, Unsupported
from aiserver.providers.catalogue import BY_TYPE
from aiserver.providers.registry import load_translator
from docs.generate import write

PAGE = Path(__file__).parent / "providers.md"


def main(arguments: list[str]) -> int:
    return write(PAGE, "docs/vendors.py", [table([load_translator(type).capabilities for type in BY_TYPE])], arguments)


def table(vendors: Sequence[Capabilities]) -> str:
    """One row for each request field, one column for each vendor."""
    fields = list(dict.fromkeys(field for capabilities in vendors for field in capabilities.rules))
    head = f"| request field | {' | '.join(capabilities.vendor for capabilities in vendors)} |"
    rows = [_row(field, [capabilities.rules.get(field) for capabilities in vendors]) for field in fields]
    return "\n".join([head, "|---" * (len(vendors) + 1) + "|", *rows])


def _row(field: str, rules: Sequence[Rule | None]) -> str:
    name, _, context = field.partition(" ")
    cells = [f"`{name.rstrip(':')}` {context}".rstrip(), *map(_cell, rules)]
    return f"| {' | '.join(cells)} |"


def _cell(rule: Rule | None) -> str:
    match rule:
        case PassThrough(target, note):
            return f"passed through as `{target}`" + (f": {note}" if note else "")
        case Mapped(description):
            return description
        case Unsupported(reason, allowed_values):
            exception = f" except {' and '.join(f'`{text}`' for text in allowed_values)}" if allowed_values else ""
            return f"**not supported**{exception}" + (f": {reason}" if reason else "")
        case None:
            return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
