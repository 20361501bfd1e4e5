"""docs/decisions: file names, titles and headings of the pages, the index, and links between them."""

import re
from pathlib import Path

import pytest

from local.template import REPOSITORY

FOLDER = REPOSITORY / "docs" / "decisions"
PAGES = sorted(FOLDER.glob("[0-9]*.md"))
HEADINGS = ("Context", "Choice", "What we gave up", "How we would notice it was wrong")
INDEX_ROW = re.compile(r"\| (\d+) \| \[(.+?)\]\((.+?)\) \| .+ \|")
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)\s]*)?\)")  # to a file of the repository


def title(page: Path) -> tuple[str, str]:
    """The number and the title in the first line of a page."""
    match = re.match(r"# (\d+)\. (.+)\n", page.read_text())
    assert match, f"{page.name} must begin with '# <number>. <title>'"
    return match[1], match[2]


def file_name(number: str, text: str) -> str:
    return f"{int(number):04}-{re.sub('[^a-z0-9]+', '-', text.lower()).strip('-')}.md"


def test_index_lists_every_page_with_its_exact_title() -> None:
    rows = INDEX_ROW.findall((FOLDER / "README.md").read_text())
    assert rows == [(*title(page), page.name) for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_is_named_after_its_title_and_has_the_four_headings(page: Path) -> None:
    assert page.name == file_name(*title(page))
    found = re.findall(r"^\*\*(.+?)\.\*\*", page.read_text(), re.MULTILINE)
    assert [heading for heading in found if heading in HEADINGS] == list(HEADINGS)


@pytest.mark.parametrize("page", [FOLDER / "README.md", *PAGES], ids=lambda page: page.stem)
def test_links_of_a_page_lead_to_existing_files(page: Path) -> None:
    assert [link for link in LINK.findall(page.read_text()) if not (FOLDER / link).exists()] == []


def test_links_to_decisions_in_other_files_are_valid() -> None:
    sources = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md"), *(REPOSITORY / "docs").glob("*.py")]
    links = {
        (source.name, name)
        for source in sources
        for name in re.findall(r"decisions/(\d[^)\s]*\.md)", source.read_text())
    }
    assert [link for link in sorted(links) if not (FOLDER / link[1]).exists()] == []
