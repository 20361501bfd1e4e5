"""Fills the table of limits in docs/api.md from aiserver/limits.py: `python -m docs.limits`.

`--check` writes nothing and exits 1 when the page is stale; `make check` runs it so.
"""

import sys
from pathlib import Path

from aiserver import limits
from aiserver.limits import KB, MB, Limit
from docs.generate import write

PAGE = Path(__file__).parent / "api.md"


def main(arguments: list[str]) -> int:
    rows = [value for value in vars(limits).values() if isinstance(value, Limit)]
    lines = [f"| {row.what} | {_amount(row)} | {row.beyond} |" for row in rows]
    return write(
        PAGE, "docs/limits.py", ["\n".join(["| what | at most | beyond it |", "|---|---|---|", *lines])], arguments
    )


def _amount(limit: Limit) -> str:
    """`5 MB`, in units of 1,024."""
    if limit.unit != "bytes":
        return f"{limit:,} {limit.unit}"
    for size, unit in ((MB, "MB"), (KB, "KB")):
        if limit % size == 0:
            return f"{limit // size:,} {unit}"
    return f"{limit:,} bytes"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
