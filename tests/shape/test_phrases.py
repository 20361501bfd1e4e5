"""Texts that people read are plain English of the field: these phrases are not used."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.template import REPOSITORY

PHRASES = (
    *(r"cannot be told", r"is told of", r"leads nowhere", r"hears nothing", r"says nothing", r"says a word"),
    *(r"no words for", r"words for that", r"passed over", r"is left alone", r"of late", r"in vain", r"but for the"),
    *(
        r"whoever",
        r"anew",
        r"amid",
        r"hasten",
        r"a deed",
        r"the house",
        r"of which nothing",
        r"is no (?:list|member|URL)",
    ),
    *(r"cannot stand in", r"the calls it may have", r"by others all the time", r"gave no whole", r"fell silent"),
    *(r"did not answer in time", r"not an answer of its own", r"what becomes of", r"what came of", r"for good\b"),
    *(r"looks? after", r"heard of", r"nobody", r"somebody", r"the matter\b"),
)
BANNED = re.compile("|".join(rf"\b(?:{phrase})" for phrase in PHRASES), re.IGNORECASE)


def sources() -> Iterator[Path]:
    """What people read: the code with its messages, the template, commands, and the main pages."""
    for folder in ("layers/aiserver/aiserver", "functions", "local"):
        yield from sorted((REPOSITORY / folder).rglob("*.py"))
    yield from (
        REPOSITORY / name for name in ("template.yaml", "Makefile", "README.md", "CONTRIBUTING.md", "SECURITY.md")
    )
    yield from sorted((REPOSITORY / "docs" / "decisions").glob("*.md"))
    yield from (
        REPOSITORY / "docs" / f"{name}.md"
        for name in (
            "api",
            "architecture",
            "callbacks",
            "events",
            "glossary",
            "jobs",
            "streaming",
            "providers",
            "operate",
            "gpu",
            "security",
        )
    )


@pytest.mark.parametrize("source", list(sources()), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_text_has_no_banned_phrase(source: Path) -> None:
    lines = enumerate(source.read_text().splitlines(), start=1)
    assert [f"{number}: {line.strip()}" for number, line in lines if BANNED.search(line)] == []
