"""read_body rejects compressed bodies and charsets other than UTF-8, and nothing else."""

import base64
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aiserver.errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType
from aiserver.limits import MAX_BODY_BYTES
from aiserver.request_body import read_body

LATIN_1 = '{"content":"café"}'.encode("latin-1")
HEADERS = st.dictionaries(st.sampled_from(["content-type", "content-length", "content-encoding"]), st.text(max_size=40))


def event(content: bytes) -> dict[str, Any]:
    """Return an API Gateway event with this body."""
    return {"body": content.decode("utf-8", "replace"), "isBase64Encoded": False}


def read(content: bytes, **headers: str) -> bytes:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_body(event(content), {"content-length": str(len(content))} | names)


@pytest.mark.parametrize("coding", ["gzip", "zstd", "br", "deflate", "GZIP", "identity, gzip", "gzip, gzip", "x-gzip"])
def test_compressed_body_is_a_415_naming_its_content_encoding(coding: str) -> None:
    with pytest.raises(UnsupportedMediaType, match=f"Content-Encoding '{coding}'") as raised:
        read(b"\x1f\x8b\x08", content_encoding=coding)
    assert raised.value.code == "unsupported_content_encoding"


@pytest.mark.parametrize("coding", ["", "identity", "Identity", " identity , "])
def test_body_with_identity_coding_passes(coding: str) -> None:
    assert read(b"{}", content_encoding=coding) == b"{}"


def test_request_without_a_body_may_have_any_content_encoding() -> None:
    assert read_body({"body": None, "isBase64Encoded": False}, {"content-encoding": "gzip"}) == b""


@pytest.mark.parametrize(
    ("charset", "content"),
    [
        ("iso-8859-1", LATIN_1),
        ("ISO-8859-15", "€é".encode("iso-8859-15")),
        ("windows-1252", "é".encode("windows-1252")),
        ("utf-16", "{}".encode("utf-16")),
        ("utf-16le", "{}".encode("utf-16le")),
        ("utf-32be", "{}".encode("utf-32be")),
        ("gbk", "语".encode("gbk")),
        ("shift_jis", "語".encode("shift_jis")),
        ("iso-8859-1", "é".encode()),
    ],
)
def test_body_in_another_charset_is_a_400_naming_it(charset: str, content: bytes) -> None:
    for label in (f"application/json; charset={charset}", f'text/plain;CHARSET="{charset}"; x=y'):
        with pytest.raises(InvalidRequest, match=f"Charset '{charset}' is not supported"):
            read_body(event(content), {"content-type": label})


@pytest.mark.parametrize("charset", ["iso-8859-1", "windows-1252", "unknown-8bit"])
def test_ascii_body_passes_in_any_ascii_compatible_charset(charset: str) -> None:
    assert read(b'{"a":1}', content_type=f"application/json; charset={charset}") == b'{"a":1}'


@pytest.mark.parametrize(
    "content_type",
    ["", "application/json", "application/json; charset=utf-8", "text/plain;charset=UTF-8", "a/b; charset='utf8'"],
)
@pytest.mark.parametrize("content", ["é", "\ufffd", "\ufffd\ufffdé語😀"])
def test_utf_8_body_with_replacement_characters_passes(content: str, content_type: str) -> None:
    assert read(content.encode(), content_type=content_type) == content.encode()
    assert read_body(event(content.encode()), {"content-type": content_type}) == content.encode()  # chunked


@given(st.text(min_size=1, max_size=20), st.sampled_from([b"\xe9", b"\xff\xfe", b"\xf0\x9f", b"\xc0\xaf"]), st.text())
def test_content_length_that_proves_invalid_utf_8_is_a_400(before: str, invalid: bytes, after: str) -> None:
    with pytest.raises(InvalidRequest, match="not valid UTF-8"):
        read(before.encode() + invalid + after.encode())


@pytest.mark.parametrize("declared", ["", "0", "4", "7", "999", "abc", "-1", "1" * 5000, "١٢"])
def test_content_length_without_proof_of_invalid_utf_8_is_ignored(declared: str) -> None:
    assert read_body(event("aa\ufffdaa".encode()), {"content-length": declared}) == "aa\ufffdaa".encode()


@given(st.binary(max_size=60))
def test_base64_body_must_be_utf_8(content: bytes) -> None:
    encoded_event = {"body": base64.b64encode(content).decode(), "isBase64Encoded": True}
    try:
        content.decode()
    except UnicodeDecodeError:
        with pytest.raises(InvalidRequest, match="not valid UTF-8"):
            read_body(encoded_event, {})
    else:
        assert read_body(encoded_event, {}) == content


@given(st.text(max_size=60), HEADERS)
def test_body_is_read_unchanged_or_rejected_for_any_headers(content: str, headers: dict[str, str]) -> None:
    assume(not any("\ud800" <= letter <= "\udfff" for letter in content))
    try:
        assert read_body({"body": content, "isBase64Encoded": False}, headers) == content.encode()
    except (InvalidRequest, UnsupportedMediaType):
        assert headers


def test_body_size_is_checked_before_its_charset() -> None:
    with pytest.raises(PayloadTooLarge):
        read_body(event(b"\xe9" * (MAX_BODY_BYTES + 1)), {"content-type": "a/b; charset=latin-1"})
