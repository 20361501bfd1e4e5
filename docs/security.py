"""Fills the part of docs/security.md that shows which addresses are refused, and why: `python -m docs.security`.

The addresses are samples of the tests' vectors, the words the product's own. `--check` writes nothing and exits 1
when the page is stale; `make check` runs it so.
"""

import sys
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from aiserver.webhooks.client import WebhookClient
from aiserver.webhooks.url_policy import CallbackRefused, parse_url
from docs.generate import write
from tests import addresses

PAGE = Path(__file__).parent / "security.md"
STARTS = "replyTo cannot be called: "
SAMPLES = 2  # of each kind of address that is refused by what its name resolves to, and of each that is accepted
SHOWN_CHARS = 90  # of an address: some are as long as names may be, and longer


def main(arguments: list[str]) -> int:
    return write(
        PAGE, "docs/security.py", [refusals(), "### What is accepted, and as what it is called", calls()], arguments
    )


def refusals() -> str:
    """Rows for each kind of vector that must be refused."""
    rows = [(what, next(iter(urls))) for what, urls in addresses.FORMS.items()]
    rows += [(what, f"https://{name}/") for what, names in addresses.NAMES.items() for name in list(names)[:SAMPLES]]
    replier = WebhookClient(resolver=addresses.resolve)
    lines = [_row(what, _address(url), _refusal(replier, url), _where(url)) for what, url in rows]
    return _table(["what", "address", "refused, because", "where"], lines)


def calls() -> str:
    """Rows for each kind of vector that must be accepted."""
    rows = [(what, url) for what, urls in addresses.ACCEPTED.items() for url in list(urls)[:SAMPLES]]
    return _table(
        ["what", "address", "is called as"], [_row(what, _code(url), _code(str(parse_url(url)))) for what, url in rows]
    )


def _refusal(replier: WebhookClient, url: str) -> str:
    try:
        replier.check_url(url)
    except CallbackRefused as refusal:
        return _cell(refusal.message.removeprefix(STARTS))
    raise AssertionError(f"{url!r} was accepted")


def _where(url: str) -> str:
    try:
        parse_url(url)
    except CallbackRefused:
        return "by its form"
    return "by its addresses"


def _address(url: str) -> str:
    found = addresses.FOUND.get(url.removeprefix("https://").removesuffix("/"))
    return f"{_code(url)} → {', '.join(map(_code, found))}" if found else _code(url)


def _visible(text: str) -> str:
    """With the numbers of characters that cannot be seen or would be lost, and no longer than a page can show."""
    last = len(text) - 1
    shown = "".join(
        f"⟨U+{ord(char):04X}⟩" if _is_hidden(char) or (char == " " and at in (0, last)) else char
        for at, char in enumerate(text)
    )
    return shown if len(shown) <= SHOWN_CHARS else f"{shown[:SHOWN_CHARS]}… ({len(text)} characters)"


def _is_hidden(char: str) -> bool:
    return not char.isprintable() or unicodedata.combining(char) > 0


def _code(text: str) -> str:
    """A code span; a longer fence where the text holds a backtick."""
    fence = "``" if "`" in text else "`"
    return _cell(f"{fence}{_visible(text)}{fence}") if text else "(nothing)"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _table(head: list[str], lines: Iterable[str]) -> str:
    return "\n".join([_row(*head), "|---" * len(head) + "|", *lines])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
