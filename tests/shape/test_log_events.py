"""Log events have unique snake_case names, and the functions log no others."""

import ast
import re
from pathlib import Path

from aiserver import log_events
from aiserver.log_events import LogEvent
from local.template import REPOSITORY

LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
EVENTS = {name: value for name, value in vars(log_events).items() if isinstance(value, LogEvent)}
SOURCES = [
    *(REPOSITORY / "layers" / "aiserver" / "aiserver").rglob("*.py"),
    *(REPOSITORY / "functions").rglob("*.py"),
]


def logged_names(source: Path) -> list[str]:
    """The first arguments of log calls: names of log_events, or the source text of what is none."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source.read_text())):
        is_log = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS
        if is_log and ast.unparse(node.func.value) in ("log", "logger"):
            alternatives = (
                [node.args[0].body, node.args[0].orelse] if isinstance(node.args[0], ast.IfExp) else node.args[:1]
            )
            names += [ast.unparse(argument) for argument in alternatives]
    return names


def test_event_names_are_unique_and_snake_case() -> None:
    assert len(set(EVENTS.values())) == len(EVENTS)
    for name, event in EVENTS.items():
        assert event == name.lower()
        assert re.fullmatch(r"[a-z]+(_[a-z]+)+", event)
        assert event.fields
        assert event.meaning.endswith(".")


def test_every_log_call_uses_a_declared_event() -> None:
    names = {f"log_events.{name}" for name in EVENTS} | {"event"}  # `event` is a parameter of record_outcome's _log
    assert {name for source in SOURCES for name in logged_names(source)} <= names


def test_every_declared_event_is_logged() -> None:
    text = "".join(source.read_text() for source in SOURCES)
    assert [name for name in EVENTS if f"log_events.{name}" not in text] == []
