"""Fills the table of log events in docs/operate.md from aiserver/log_events.py: `python -m docs.log_events`.

`--check` writes nothing and exits 1 when the page is stale; `make check` runs it so.
"""

import sys
from pathlib import Path

from aiserver import log_events
from aiserver.log_events import LogEvent
from docs.generate import write

PAGE = Path(__file__).parent / "operate.md"


def main(arguments: list[str]) -> int:
    events = [value for value in vars(log_events).values() if isinstance(value, LogEvent)]
    rows = [f"| `{event}` | {event.fields} | {event.meaning} |" for event in events]
    table = "\n".join(["| event (`message`) | fields | meaning |", "|---|---|---|", *rows])
    return write(PAGE, "docs/log_events.py", [table], arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
