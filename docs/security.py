"""Generates the tables of rejected and accepted callback URLs in docs/security.md: `python -m docs.security`.

The URLs are samples of the test vectors, the reasons are the gateway's error messages. `--check` writes nothing and
exits 1 when the page is stale; used by `make check`.
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
MESSAGE_PREFIX = "'replyTo' is not allowed: "
SAMPLES = 2  # per kind of URL that is rejected for its resolved addresses, and per kind that is accepted
SHOWN_CHARS = 90  # of a URL: some exceed the maximum length of a name


def main(arguments: list[str]) -> int:
    return write(PAGE, "docs/security.py", [rejection_table(), "### Accepted URLs", acceptance_table()], arguments)


def rejection_table() -> str:
    """Rows for each kind of vector that must be rejected."""
    samples = [(kind, next(iter(urls))) for kind, urls in addresses.FORMS.items()]
    samples += [(kind, f"https://{name}/") for kind, names in addresses.NAMES.items() for name in list(names)[:SAMPLES]]
    client = WebhookClient(resolver=addresses.resolve)
    rows = [_row(kind, _url_cell(url), _reason(client, url), _check(url)) for kind, url in samples]
    return _table(["kind", "URL", "reason", "rejected by"], rows)


def acceptance_table() -> str:
    """Rows for each kind of vector that must be accepted."""
    samples = [(kind, url) for kind, urls in addresses.ACCEPTED.items() for url in list(urls)[:SAMPLES]]
    rows = [_row(kind, _code(url), _code(str(parse_url(url)))) for kind, url in samples]
    return _table(["kind", "URL", "URL called"], rows)


def _reason(client: WebhookClient, url: str) -> str:
    try:
        client.check_url(url)
    except CallbackRefused as refusal:
        return _escape(refusal.message.removeprefix(MESSAGE_PREFIX))
    raise AssertionError(f"{url!r} was accepted")


def _check(url: str) -> str:
    try:
        parse_url(url)
    except CallbackRefused:
        return "URL syntax"
    return "resolved addresses"


def _url_cell(url: str) -> str:
    resolved = addresses.ADDRESSES.get(url.removeprefix("https://").removesuffix("/"))
    return f"{_code(url)} → {', '.join(map(_code, resolved))}" if resolved else _code(url)


def _visible(text: str) -> str:
    """The text with code points for invisible characters, shortened to SHOWN_CHARS."""
    last = len(text) - 1
    visible = "".join(
        f"⟨U+{ord(char):04X}⟩" if _is_hidden(char) or (char == " " and index in (0, last)) else char
        for index, char in enumerate(text)
    )
    return visible if len(visible) <= SHOWN_CHARS else f"{visible[:SHOWN_CHARS]}… ({len(text)} characters)"


def _is_hidden(char: str) -> bool:
    return not char.isprintable() or unicodedata.combining(char) > 0


def _code(text: str) -> str:
    """A code span, with a longer fence when the text contains a backtick."""
    fence = "``" if "`" in text else "`"
    return _escape(f"{fence}{_visible(text)}{fence}") if text else "(nothing)"


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _table(head: list[str], rows: Iterable[str]) -> str:
    return "\n".join([_row(*head), "|---" * len(head) + "|", *rows])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
