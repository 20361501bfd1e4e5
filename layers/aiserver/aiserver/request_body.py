"""Reads the bytes of a request body: a form, or text, which must be plain UTF-8.

API Gateway passes forms to a function in base64, because template.yaml lists them as a binary media type. It passes
any other body as text, with invalid UTF-8 replaced by U+FFFD. The original can only be inferred: from Content-Encoding,
from the charset, or from a Content-Length that does not match the text.
"""

import base64
import re
from collections.abc import Mapping
from typing import Any

from aiserver.errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType
from aiserver.limits import MAX_BODY_BYTES, MAX_FORM_BYTES
from aiserver.wire.json_text import NOT_UTF_8, check_utf8
from aiserver.wire.media_types import is_form

REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()
UTF_8_NAMES = ("utf-8", "utf8", "us-ascii", "ascii")
EXCERPT_CHARS = 60  # of a header value in an error message
_CHARSET = re.compile(r""";\s*charset\s*=\s*["']?([^\s;"']+)""", re.IGNORECASE)


def read_body(event: Mapping[str, Any], headers: Mapping[str, str]) -> bytes:
    """The body of an API Gateway event as bytes; header names in lower case.

    Bytes, because one emoji makes a str of it four times as large.

    Raises: UnsupportedMediaType (compressed), PayloadTooLarge, InvalidRequest (not UTF-8).
    """
    text: str = event.get("body") or ""
    if event.get("isBase64Encoded") and is_form(headers.get("content-type", "")):
        return _read_form(text, headers)
    if text:
        _check_encoding(headers.get("content-encoding", ""))
    body = base64.b64decode(text) if event.get("isBase64Encoded") else text.encode("utf-8", "surrogatepass")
    if len(body) > MAX_BODY_BYTES:
        raise PayloadTooLarge(f"The request body exceeds {MAX_BODY_BYTES // 1024 // 1024} MB")
    if event.get("isBase64Encoded"):
        check_utf8(body)
    elif is_form(headers.get("content-type", "")) and REPLACEMENT in body:
        raise InvalidRequest("The form was damaged on its way: the API does not pass forms on as binary data")
    _check_charset(headers.get("content-type", ""), body)
    _check_length(headers.get("content-length", ""), body)
    return body


def _read_form(text: str, headers: Mapping[str, str]) -> bytes:
    _check_encoding(headers.get("content-encoding", ""))
    body = base64.b64decode(text)
    if len(body) > MAX_FORM_BYTES:
        message = f"The form exceeds {MAX_FORM_BYTES:,} bytes: send a compressed format (Opus, MP3), or split the file"
        raise PayloadTooLarge(message)
    return body


def _check_encoding(value: str) -> None:
    codings = [coding.strip().lower() for coding in value.split(",")]
    if any(coding not in ("", "identity") for coding in codings):
        raise UnsupportedMediaType(f"Content-Encoding {_excerpt(value)} is not supported: send the body uncompressed")


def _check_charset(content_type: str, body: bytes) -> None:
    """ASCII text has the same bytes in all common charsets, except UTF-16 and UTF-32, which add NUL bytes."""
    charset = _CHARSET.search(content_type)
    if charset and charset[1].lower() not in UTF_8_NAMES and (not body.isascii() or b"\0" in body):
        raise InvalidRequest(f"Charset {_excerpt(charset[1])} is not supported: send the body as UTF-8")


def _check_length(declared: str, body: bytes) -> None:
    """U+FFFD replaces one to three bytes: a Content-Length outside that range proves nothing."""
    count = body.count(REPLACEMENT)
    if not count or not (declared.isascii() and declared.isdigit() and len(declared) <= len(str(MAX_BODY_BYTES))):
        return
    if len(body) - (len(REPLACEMENT) - 1) * count <= int(declared) < len(body):
        raise InvalidRequest(NOT_UTF_8)


def _excerpt(value: str) -> str:
    return repr(value[:EXCERPT_CHARS])
