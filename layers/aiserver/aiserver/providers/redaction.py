"""Masks the provider's own key in what the provider returns: some repeat it in an error or in a header."""

import base64
import html
import json
import re
from collections.abc import Generator
from contextlib import contextmanager
from functools import lru_cache
from urllib.parse import quote

from aiserver.errors import ProviderError, ProviderResponse
from aiserver.limits import MAX_ERROR_BYTES

MASK = b"[key]"
MIN_KEY_CHARS = 8  # a shorter "key" could be a word of any error
MIN_KEY_CHARS_IN_BODIES = 16  # own GPUs have keys like "lm-studio" and "password", which stand in good answers, too


class Redaction:
    """Of one key: in answers, which may be long, as programs write it; in errors and headers, in any spelling."""

    def __init__(self, api_key: str | None) -> None:
        self._key = api_key if api_key and len(api_key) >= MIN_KEY_CHARS else ""
        self._common = _common_forms(self._key) if len(self._key) >= MIN_KEY_CHARS_IN_BODIES else ()

    def mask(self, body: bytes) -> bytes:
        return _replace_all(self._common, body)

    def mask_headers(self, values: dict[str, str]) -> dict[str, str]:
        return {name: self._mask_any_spelling(value.encode()).decode() for name, value in values.items()}

    @contextmanager
    def redact_errors(self) -> Generator[None]:
        """In each ProviderError that the block raises: reading an error may decode what hid the key in it."""
        try:
            yield
        except ProviderError as error:
            error.message = self._mask_any_spelling(error.message.encode()).decode()
            error.args = (error.message,)
            if said := error.upstream:
                error.upstream = ProviderResponse(
                    said.status, said.headers, self._mask_any_spelling(said.body), said.usage
                )
            raise

    def _mask_any_spelling(self, text: bytes) -> bytes:
        if not self._key:
            return text
        text = _replace_all(_common_forms(self._key), text)
        if len(text) > MAX_ERROR_BYTES:  # which is relayed to nobody
            return text
        return _any_spelling(self._key).sub(MASK, text)


def _replace_all(forms: tuple[bytes, ...], text: bytes) -> bytes:
    for form in forms:
        if form in text:
            text = text.replace(form, MASK)
    return text


@lru_cache
def _common_forms(key: str) -> tuple[bytes, ...]:
    """As it is, and as JSON, URLs and base64 write it; base64 also among other bytes, as in `Bearer …`."""
    if not key:
        return ()
    escaped, dotnet = json.dumps(key)[1:-1], key
    for char in "+<>&'":
        dotnet = dotnet.replace(char, f"\\u{ord(char):04X}")
    quoted, path = quote(key, safe=""), quote(key)
    forms = {key, escaped, escaped.replace("/", "\\/"), dotnet, dotnet.lower(), quoted, path}
    forms |= {re.sub("%..", lambda code: code[0].lower(), one) for one in (quoted, path)}
    for before in range(3):  # bytes of another text, which share a letter with the key's first or last
        text = base64.b64encode(bytes(before) + key.encode()).decode().rstrip("=")
        is_even = (before + len(key)) % 3 == 0
        whole = text[before + 1 if before else 0 : len(text) if is_even else -1]
        forms |= {whole, whole.replace("+", "-").replace("/", "_")}
    return tuple(sorted({form.encode() for form in forms}, key=len, reverse=True))


@lru_cache
def _any_spelling(key: str) -> re.Pattern[bytes]:
    """What matches the key however each of its characters is spelled."""
    return re.compile("".join(f"(?:{'|'.join(_spellings(char))})" for char in key).encode())


def _spellings(char: str) -> list[str]:
    """As expressions: by itself, escaped in JSON, in a URL once or several times, as an entity of HTML or XML."""
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
