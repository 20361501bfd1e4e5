"""Generates the reference of the API from its table: `python -m docs.dtos`.

It writes the tables of routes and errors in docs/api.md, and docs/reference/types.md. `--check` writes nothing and
exits 1 when a page is stale; used by `make check`.
"""

import sys
from pathlib import Path

from aiserver.dtos.routes import ERRORS, EVENTS, ROUTES
from aiserver.dtos.schema import Dto, DtoMember, DtoRequest, ErrorRow, EventRow
from aiserver.dtos.table import TABLE
from docs.generate import write

DOCS = Path(__file__).parent
API, TYPES = DOCS / "api.md", DOCS / "reference" / "types.md"
REFERENCE = "reference/types.md"


def main(arguments: list[str]) -> int:
    return (
        write(API, "docs/dtos.py routes", [route_table()], arguments)
        | write(API, "docs/dtos.py errors", [error_table()], arguments)
        | write(API, "docs/dtos.py events", [event_table()], arguments)
        | write(TYPES, "docs/dtos.py", type_sections(), arguments)
    )


def table(head: str, rows: list[str]) -> str:
    return "\n".join([f"| {head} |", "|---" * (head.count("|") + 1) + "|", *rows])


def route_table() -> str:
    """One row for all routes with the same response."""
    paths: dict[tuple[str, str], list[str]] = {}
    for route in ROUTES:
        response = f"{route.status}: {_link(route.response)}{', ' if route.response else ''}{route.doc}"
        paths.setdefault((route.method, response), []).append(_path(route.path, route.request))
    for request in TABLE.requests:
        response = f"200: {_link(request.returns)}"
        paths.setdefault((request.method, response), []).append(_path(f"/api/{request.name}", request.name))
    return table(
        "route | response", [f"| {method} {', '.join(group)} | {doc} |" for (method, doc), group in paths.items()]
    )


def _path(path: str, request: str) -> str:
    """The path, with a link to the type of its request."""
    return f"[`{path}`]({REFERENCE}#{request.lower()})" if request else f"`{path}`"


def _link(name: str) -> str:
    return f"[`{name}`]({REFERENCE}#{name.lower()})" if name else ""


def error_table() -> str:
    return table("status | `errorCode` | `error.type` | `error.code` | when", [_error_row(row) for row in ERRORS])


def _error_row(row: ErrorRow) -> str:
    codes = ", ".join(f"`{code}`" for code in row.codes)
    return f"| {row.status} | `{row.error_code}` | `{row.type}` | {codes} | {row.doc} |"


def event_table() -> str:
    return table("sent by | name | content", [_event_row(row) for row in EVENTS])


def _event_row(row: EventRow) -> str:
    return f"| {row.channel} | `{row.name}` | {f'{_link(row.type)}: {row.doc}' if row.type else row.doc} |"


def type_sections() -> list[str]:
    requests = [dto for dto in TABLE.dtos if isinstance(dto, DtoRequest)]
    others = [dto for dto in TABLE.dtos if not isinstance(dto, DtoRequest)]
    enumerations = [
        f"### {row.name}\n\n{row.doc} One of {', '.join(f'`{value}`' for value in row.values)}."
        for row in TABLE.enumerations
    ]
    return ["## Requests", *map(_section, requests), "## Other types", *map(_section, others), *enumerations]


def _section(dto: Dto) -> str:
    parts = [f"### {dto.name}", _description(dto)]
    if dto.members:
        parts.append(table("member | type | required | meaning", [_member_row(member) for member in dto.members]))
    return "\n\n".join(parts)


def _description(dto: Dto) -> str:
    base = f" It has the members of [{dto.base}](#{dto.base.lower()}) too." if dto.base else ""
    if not isinstance(dto, DtoRequest):
        return dto.doc + base
    files = f" Files of the form: {', '.join(f'`{name}`' for name in dto.files)}." if dto.files else ""
    returns = f" Returns [{dto.returns}](#{dto.returns.lower()})."
    return f"{dto.method} `/api/{dto.name}`. {dto.doc}{base}{files}{returns}"


def _member_row(member: DtoMember) -> str:
    type = member.type
    if not member.is_scalar:
        type = type.replace(member.element, f"[{member.element}](#{member.element.lower()})")
    return f"| `{member.name}` | {type} | {'yes' if member.is_required else ''} | {member.doc} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
