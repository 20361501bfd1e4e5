"""Generates the table of limits in docs/api.md from aiserver/limits.py: `python -m docs.limits`.

`--check` writes nothing and exits 1 when the page is stale; used by `make check`.
"""

import sys
from pathlib import Path

from aiserver import limits
from aiserver.limits import KB, MB, Limit
from docs.generate import write

PAGE = Path(__file__).parent / "api.md"


def main(arguments: list[str]) -> int:
    table = [limit for limit in vars(limits).values() if isinstance(limit, Limit)]
    rows = [f"| {limit.subject} | {_amount(limit)} | {limit.when_exceeded} |" for limit in table]
    return write(
        PAGE, "docs/limits.py", ["\n".join(["| subject | limit | when exceeded |", "|---|---|---|", *rows])], arguments
    )


def _amount(limit: Limit) -> str:
    """For example `5 MB`; KB and MB are powers of 1,024."""
    if limit.unit != "bytes":
        return f"{limit:,} {limit.unit}"
    for size, unit in ((MB, "MB"), (KB, "KB")):
        if limit % size == 0:
            return f"{limit // size:,} {unit}"
    return f"{limit:,} bytes"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
