"""The ReplyTo addresses of tests/vectors, which the tests and docs/security.md take from there."""

import tomllib
from pathlib import Path

_VECTORS = Path(__file__).parent / "vectors"
_OURS = tomllib.loads((_VECTORS / "addresses.toml").read_text(encoding="utf-8"))

FORMS: dict[str, list[str]] = _OURS["refused_by_form"]  # what they have in common, and the URLs
NAMES: dict[str, dict[str, list[str]]] = _OURS["refused_by_addresses"]  # … and each name with its addresses
ACCEPTED: dict[str, dict[str, str]] = _OURS["accepted"]  # … and each URL with the one that is called
FOUND = {name: found for some in NAMES.values() for name, found in some.items()}


def resolve(host: str, port: int) -> list[str]:
    """The addresses that the vectors give a name, and public ones for every other."""
    return FOUND.get(host, ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])


def given() -> list[str]:
    """Of ssrf.txt, one a line."""
    lines = (_VECTORS / "ssrf.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]
