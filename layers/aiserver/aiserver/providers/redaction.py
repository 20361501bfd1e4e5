"""Masks the provider's own key in what the provider returns: some repeat it in an error or in a header."""

import base64
import json
from urllib.parse import quote

MASK = "[key]"
LEAST_CHARS = 8  # a shorter "key" could be a word of any answer


class Redaction:
    """Of one key: as it is, and as JSON, a URL or base64 writes it."""

    def __init__(self, api_key: str | None) -> None:
        key = api_key if api_key and len(api_key) >= LEAST_CHARS else ""
        escaped = json.dumps(key)[1:-1]
        forms = (
            key,
            escaped,
            escaped.replace("/", "\\/"),
            quote(key, safe=""),
            base64.b64encode(key.encode()).decode(),
        )
        self._forms = sorted({form.encode() for form in forms if form}, key=len, reverse=True)

    def masked(self, body: bytes) -> bytes:
        for form in self._forms:
            if form in body:
                body = body.replace(form, MASK.encode())
        return body

    def headers(self, values: dict[str, str]) -> dict[str, str]:
        return {name: self.masked(value.encode()).decode() for name, value in values.items()}
