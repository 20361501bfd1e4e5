"""The ReplyTo URLs of tests/vectors, shared by the tests and docs/security.md."""

import tomllib
from pathlib import Path

_VECTORS = Path(__file__).parent / "vectors"
_CASES = tomllib.loads((_VECTORS / "addresses.toml").read_text(encoding="utf-8"))

FORMS: dict[str, list[str]] = _CASES["refused_by_form"]  # reason -> URLs
NAMES: dict[str, dict[str, list[str]]] = _CASES["refused_by_addresses"]  # reason -> host name -> its addresses
ACCEPTED: dict[str, dict[str, str]] = _CASES["accepted"]  # reason -> URL -> the normalized URL that is called
ADDRESSES = {name: addresses for hosts in NAMES.values() for name, addresses in hosts.items()}


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a name in the vectors, and public addresses for all other names."""
    return ADDRESSES.get(host, ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])


def ssrf_urls() -> list[str]:
    """Return the URLs of ssrf.txt, one per line."""
    lines = (_VECTORS / "ssrf.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]
