"""Multipart forms: parse, edit and encode their parts.

Source: https://www.rfc-editor.org/rfc/rfc7578, https://html.spec.whatwg.org/multipage/form-control-infrastructure.html
"""

import hashlib
import json
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from urllib.parse import unquote

from multipart import (  # pyright: ignore[reportMissingTypeStubs]
    MultipartError,
    MultipartSegment,
    PushMultipartParser,
)

from aiserver.errors import InvalidRequest
from aiserver.limits import MAX_FORM_PARTS, MAX_PART_HEADER_BYTES
from aiserver.wire.media_types import FORM, is_form
from aiserver.wire.validation import invalid_field

# The names in Content-Disposition are escaped as browsers do: the parser and other servers read them so.
_ESCAPES = {'"': "%22", "\r": "%0D", "\n": "%0A"}
_EXTENDED_FILE_NAME = re.compile(r""";\s*filename\*\s*=\s*utf-8'[^']*'([^\s;]+)""", re.IGNORECASE)
_BOUNDARY = re.compile(r""";\s*boundary\s*=\s*(?:"([^"]+)"|([^;\s"]+))""", re.IGNORECASE)
_PLAIN_ENCODINGS = ("binary", "8bit", "7bit")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_ENCODED_WORD = re.compile(r"=\?(?:utf-8|iso-8859-1)\?[BbQq]\?[^?]*\?=", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Part:
    """One part of a form: a text field, or a file if it has a `file_name`."""

    name: str
    content: bytes
    file_name: str | None = None
    content_type: str | None = None

    @property
    def is_file(self) -> bool:
        return self.file_name is not None

    @property
    def text(self) -> str:
        """The content of a text field. Raises: InvalidRequest, when it is not UTF-8."""
        try:
            return self.content.decode()
        except UnicodeDecodeError:
            raise invalid_field("InvalidForm", self.name, f"'{self.name}' is not valid UTF-8") from None


def parse_form(body: bytes, content_type: str) -> list[Part]:
    """The parts of a form, in order, with duplicates. Raises: InvalidRequest, with the error code InvalidForm."""
    if not is_form(content_type):
        raise invalid_form(f"The request body must be {FORM}")
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        raise invalid_form("The content type of the form has no boundary")
    try:
        with PushMultipartParser(
            boundary[1] or boundary[2], max_header_size=MAX_PART_HEADER_BYTES, max_segment_count=MAX_FORM_PARTS
        ) as parser:
            return _collect_parts(parser, body)
    except (MultipartError, UnicodeError) as error:
        raise invalid_form(f"The form cannot be parsed: {error.args[0]}") from None


def _collect_parts(parser: PushMultipartParser, body: bytes) -> list[Part]:
    parts: list[Part] = []
    segment: MultipartSegment | None = None
    chunks: list[bytes] = []
    for event in parser.parse(body) if body else ():
        if isinstance(event, MultipartSegment):
            segment, chunks = event, []
            if (_header(segment, "Content-Transfer-Encoding") or "binary").strip().lower() not in _PLAIN_ENCODINGS:
                raise invalid_form("Content-Transfer-Encoding is not supported: send the bytes of the file")
        elif event is not None:
            chunks.append(bytes(event))
        elif segment is not None:
            content = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            parts.append(Part(_name(segment), content, _file_name(segment), _header(segment, "Content-Type")))
    return parts


def _header(segment: MultipartSegment, name: str) -> str | None:
    return next((value for key, value in segment.headerlist if key == name), None)


def _name(segment: MultipartSegment) -> str:
    """The name of a part. Raises: InvalidRequest, for a backslash: some servers read it as an escape, others do not."""
    name = segment.name or ""
    if "\\" in name:
        raise invalid_form("The name of a part contains a backslash")
    return name


def _file_name(segment: MultipartSegment) -> str | None:
    """The name of a file, without control characters and backslashes.

    .NET encodes one with other than ASCII letters twice.
    """
    name = segment.filename
    disposition = _QUOTED.sub('""', _header(segment, "Content-Disposition") or "")
    if extended := _EXTENDED_FILE_NAME.search(disposition):
        name = unquote(extended[1], errors="replace")
    elif name and _ENCODED_WORD.fullmatch(name):
        with suppress(HeaderParseError, UnicodeError, LookupError):  # the name is only similar to an encoded word
            name = str(make_header(decode_header(name)))
    return None if name is None else _CONTROL.sub("", name).replace("\\", "_")


def encode_form(parts: Iterable[Part]) -> tuple[bytes, str]:
    """The body and its content type. The same parts give the same bytes: the boundary is a hash of them."""
    sections = [(_headers(part), part.content) for part in parts]
    digest = hashlib.sha256()
    for headers, content in sections:
        digest.update(b"%d %d " % (len(headers), len(content)))
        digest.update(headers)
        digest.update(content)
    boundary = digest.hexdigest()[:40].encode()
    pieces: list[bytes] = []
    for headers, content in sections:
        pieces += [b"--", boundary, b"\r\n", headers, b"\r\n\r\n", content, b"\r\n"]
    pieces += [b"--", boundary, b"--\r\n"]
    return b"".join(pieces), f"{FORM}; boundary={boundary.decode()}"


def _headers(part: Part) -> bytes:
    disposition = f'Content-Disposition: form-data; name="{_escape(part.name)}"'
    if part.file_name is not None:
        disposition += f'; filename="{_escape(part.file_name)}"'
    content_type = f"\r\nContent-Type: {_CONTROL.sub('', part.content_type)}" if part.content_type else ""
    headers = (disposition + content_type).encode()
    if len(headers) > MAX_PART_HEADER_BYTES:
        raise invalid_form("The name of a part is too long")
    return headers


def _escape(name: str) -> str:
    return "".join(_ESCAPES.get(char, char) for char in name)


def text_value(parts: Iterable[Part], name: str) -> str | None:
    """The first text field with that name. Raises: InvalidRequest, when it is not UTF-8."""
    return next((part.text for part in parts if part.name == name and not part.is_file), None)


def with_value(parts: Iterable[Part], name: str, value: str) -> list[Part]:
    """The parts with the text field set: replaced in its place, or added as the last one."""
    new_parts = [replace(part, content=value.encode()) if _is_field(part, name) else part for part in parts]
    return new_parts if any(_is_field(part, name) for part in new_parts) else [*new_parts, Part(name, value.encode())]


def _is_field(part: Part, name: str) -> bool:
    return part.name == name and not part.is_file


def describe_form(parts: Iterable[Part]) -> bytes:
    """The form as JSON for people: `[{"name": "model", "value": "…"}, {"name": "file", "bytes": …, "sha256": …}]`."""
    entries: list[dict[str, object]] = []
    for part in parts:
        if part.is_file:
            digest = hashlib.sha256(part.content).hexdigest()
            file = {"fileName": part.file_name, "contentType": part.content_type}
            entries.append({"name": part.name, **file, "bytes": len(part.content), "sha256": digest})
        else:
            entries.append({"name": part.name, "value": part.content.decode(errors="replace")})
    return json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()


def invalid_form(message: str) -> InvalidRequest:
    return invalid_field("InvalidForm", "", message)
