"""Masks the provider's API key in its responses: some providers repeat it in an error or a header."""

import base64
import html
import json
import re
from collections.abc import Generator
from contextlib import contextmanager
from functools import lru_cache
from urllib.parse import quote

from aiserver.errors import ProviderError
from aiserver.limits import MAX_ERROR_BYTES
from aiserver.providers.response import ProviderResponse

MASK = b"[key]"
MIN_KEY_CHARS = 8  # a shorter key could be an ordinary word of an error
MIN_KEY_CHARS_IN_BODIES = (
    16  # GPU servers have keys like "lm-studio" or "password", which also occur in normal responses
)


class Redaction:
    """Masks one key: its common encodings in bodies, which may be long; any spelling in errors and headers."""

    def __init__(self, api_key: str | None) -> None:
        self._key = api_key if api_key and len(api_key) >= MIN_KEY_CHARS else ""
        self._common = _common_forms(self._key) if len(self._key) >= MIN_KEY_CHARS_IN_BODIES else ()

    def mask(self, body: bytes) -> bytes:
        return _replace_all(self._common, body)

    def mask_headers(self, headers: dict[str, str]) -> dict[str, str]:
        return {name: self._mask_any_spelling(value.encode()).decode() for name, value in headers.items()}

    @contextmanager
    def redact_errors(self) -> Generator[None]:
        """Mask the key in each ProviderError of the `with` block: parsing an error may decode an encoded key."""
        try:
            yield
        except ProviderError as error:
            error.message = self._mask_any_spelling(error.message.encode()).decode()
            error.args = (error.message,)
            if response := error.upstream:
                body = self._mask_any_spelling(response.body)
                error.upstream = ProviderResponse(response.status, response.headers, body)
            raise

    def _mask_any_spelling(self, text: bytes) -> bytes:
        if not self._key:
            return text
        text = _replace_all(_common_forms(self._key), text)
        if len(text) > MAX_ERROR_BYTES:  # such a body is not relayed
            return text
        return _any_spelling(self._key).sub(MASK, text)


def _replace_all(forms: tuple[bytes, ...], text: bytes) -> bytes:
    for form in forms:
        if form in text:
            text = text.replace(form, MASK)
    return text


@lru_cache
def _common_forms(key: str) -> tuple[bytes, ...]:
    """The key as plain text, in JSON, URLs and base64; base64 also within other text, as in `Bearer …`."""
    if not key:
        return ()
    escaped, dotnet = json.dumps(key)[1:-1], key
    for char in "+<>&'":
        dotnet = dotnet.replace(char, f"\\u{ord(char):04X}")
    quoted, path = quote(key, safe=""), quote(key)
    forms = {key, escaped, escaped.replace("/", "\\/"), dotnet, dotnet.lower(), quoted, path}
    forms |= {re.sub("%..", lambda code: code[0].lower(), encoded) for encoded in (quoted, path)}
    for offset in range(3):  # of the key in the encoded text: its first and last base64 digit may include other bytes
        text = base64.b64encode(bytes(offset) + key.encode()).decode().rstrip("=")
        is_even = (offset + len(key)) % 3 == 0
        encoded_key = text[offset + 1 if offset else 0 : len(text) if is_even else -1]
        forms |= {encoded_key, encoded_key.replace("+", "-").replace("/", "_")}
    return tuple(sorted({form.encode() for form in forms}, key=len, reverse=True))


@lru_cache
def _any_spelling(key: str) -> re.Pattern[bytes]:
    """A pattern that matches the key in any spelling of each character."""
    return re.compile("".join(f"(?:{'|'.join(_spellings(char))})" for char in key).encode())


def _spellings(char: str) -> list[str]:
    """Patterns of a character: literal, JSON escape, URL escape (possibly repeated), HTML or XML entity."""
    code = f"{ord(char):02x}"
    digits = "".join(f"[{digit}{digit.upper()}]" for digit in code)
    literal = {char, json.dumps(char)[1:-1], "\\/" if char == "/" else char, html.escape(char)}
    return [
        *sorted(map(re.escape, literal), key=len, reverse=True),
        rf"\\+u00{digits}",
        rf"%(?:25)*{digits}",
        rf"&#0*{ord(char)};",
        rf"&#[xX]0*{digits};",
    ]
