"""Forms keep their parts, whatever their names, their bytes and the client's boundary; damaged ones are a 400."""

import base64
import email
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aiserver.errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType
from aiserver.limits import MAX_FORM_BYTES, MAX_FORM_PARTS, MAX_PART_HEADER_BYTES
from aiserver.request_body import read_body
from aiserver.wire.forms import Part, describe_form, encode_form, parse_form, text_value, with_value
from tests.examples import examples

TYPE = "multipart/form-data; boundary=b"
FIELD = 'Content-Disposition: form-data; name="model"'
FILE = 'Content-Disposition: form-data; name="file"; filename="a.wav"'
TOKEN_CHARS = "abcXYZ019-_.+'"  # of boundaries without quotes, as clients use them
# What browsers escape, and what the parser reads as an escape or removes; each has a test of its own.
ESCAPES = re.compile(r"%22|%0D|%0A|\\")
REWRITTEN_FILE_NAMES = re.compile(r"[\x00-\x1f\x7f]|\A=\?.*\?=\Z")
HOSTILE_NAMES = (
    *("", " ", '"', '""', "'", ";", "; ", "=", "%", "%%", "%2", "%zz", "+", "\t", "\x00", "\x85"),
    *("timestamp_granularities[]", "chunking_strategy[type]", "a[b][c]", "[]", "file", "filename", "name=x; y=z"),
    *('x"; filename="y', 'x"; name="model', "\r\n", "\r", "\n", "a\r\nContent-Type: text/html", "\r\n\r\nbody\r\n--b"),
    *("Việt", "語😀", "\u2028\u2029", "\ufeff", "e\u0301", "../../etc/passwd", "a/b", "Recording 23:21.webm"),
    *(
        "filename*=utf-8''x",
        "a; filename*=utf-8''x",
        "\"; filename*=utf-8''x; y=\"",
        "--b--",
        "=?utf-8?B?",
        "x" * 3000,
        "語" * 1000,
        '"' * 900,
    ),
)
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAMES = (st.sampled_from(HOSTILE_NAMES) | ANY_TEXT).filter(lambda name: not ESCAPES.search(name))
FILE_NAMES = NAMES.filter(lambda name: not REWRITTEN_FILE_NAMES.search(name))
CONTENT_TYPES = st.sampled_from(
    ["text/plain", "audio/webm;codecs=opus", "application/octet-stream", "a/b; x=y", "Ünknown", "\xa0x"]
)
HOSTILE_CONTENTS = (
    *(b"", b"\r\n", b"--", b"\r\n--", b"\r\n--b", b"\r\n--b--\r\n", b"--b\r\n", b"\r\n\r\n", b"\r"),
    *(b"\xff\xfe\x00", bytes(range(256)), FIELD.encode()),
)
CONTENTS = st.binary(max_size=40) | st.sampled_from(HOSTILE_CONTENTS)
PARTS = st.builds(Part, NAMES, CONTENTS, st.none() | FILE_NAMES, st.none() | CONTENT_TYPES)
FORMS = st.lists(PARTS, max_size=5) | st.lists(PARTS, min_size=1, max_size=2).map(lambda parts: parts * 2)


def raw_part(headers: str | bytes, content: bytes = b"x") -> bytes:
    """Return a part with these header lines, as a client sends it after a boundary."""
    return (headers if isinstance(headers, bytes) else headers.encode()) + b"\r\n\r\n" + content


def raw_form(*parts: bytes, boundary: str = "b") -> bytes:
    delimiter = b"--" + boundary.encode()
    return b"".join(b"%b\r\n%b\r\n" % (delimiter, part) for part in parts) + delimiter + b"--\r\n"


def parse_part(headers: str | bytes, content: bytes = b"x") -> Part:
    """Parse a form with one part; check that what is sent to the provider is read as the same part."""
    (part,) = parse_form(raw_form(raw_part(headers, content)), TYPE)
    assert parse_form(*encode_form([part])) == [part]
    return part


def error_code(body: bytes, content_type: str) -> str | None:
    """Return the code of the error of a form; None when it is valid, and then it can be sent to a provider."""
    try:
        encode_form(parse_form(body, content_type))
    except InvalidRequest as error:
        return error.fields[0].error_code
    return None


def check_invalid(body: bytes, content_type: str = TYPE) -> None:
    """Check that a form is rejected as a whole."""
    with pytest.raises(InvalidRequest) as raised:
        parse_form(body, content_type)
    assert (raised.value.status, raised.value.error_code) == (400, "ValidationException")
    assert [(field.error_code, field.field_name) for field in raised.value.fields] == [("InvalidForm", "")]


def browser_escape(name: str) -> str:
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def client_form(parts: Sequence[Part], boundary: str) -> bytes:
    """Encode parts as a browser does, independently of the code under test."""
    raw: list[bytes] = []
    for part in parts:
        file_name = f'; filename="{browser_escape(part.file_name)}"' if part.file_name is not None else ""
        content_type = f"\r\nContent-Type: {part.content_type}" if part.content_type else ""
        headers = f'Content-Disposition: form-data; name="{browser_escape(part.name)}"{file_name}{content_type}'
        raw.append(raw_part(headers, part.content))
    return raw_form(*raw, boundary=boundary)


def form_event(body: bytes) -> dict[str, Any]:
    """Return an API Gateway event with a form: a binary media type."""
    return {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}


# --- encoding and parsing ---


@settings(max_examples=examples(500, at_least=50))  # a part that is lost or changed is a caller's data
@given(FORMS)
def test_encoded_parts_are_parsed_to_the_same_parts(parts: list[Part]) -> None:
    assert parse_form(*encode_form(parts)) == parts


@given(
    FORMS,
    st.text(TOKEN_CHARS, min_size=1, max_size=70),
    st.text(TOKEN_CHARS, min_size=1, max_size=70),
    st.sampled_from(["", "preamble\r\n", "\r\n"]),
    st.sampled_from([b"", b"epilogue", b"\r\n--"]),
)
def test_encoded_form_is_the_same_for_every_boundary_of_the_client(
    parts: list[Part], first: str, second: str, preamble: str, epilogue: bytes
) -> None:
    """The RefId's hash is that of the encoded form, and clients choose a random boundary for each attempt."""
    encoded = encode_form(parts)
    for boundary in (first, second):
        assume(not any(f"--{boundary}".encode() in part.content for part in parts))
        assume(not any(f"--{boundary}" in f"{part.name}{part.file_name}" for part in parts))
        body = preamble.encode() + client_form(parts, boundary) + epilogue
        for spelling in (boundary, f'"{boundary}"'):
            received = parse_form(body, f"multipart/form-data; boundary={spelling}; charset=utf-8")
            assert (received, encode_form(received)) == (parts, encoded)


@given(st.lists(PARTS, min_size=2, max_size=4))
def test_encoded_form_depends_on_the_order_of_parts(parts: list[Part]) -> None:
    swapped = [*parts[1:], parts[0]]
    assert (encode_form(swapped)[0] == encode_form(parts)[0]) == (swapped == parts)


@given(FORMS, st.binary(max_size=20))
def test_file_that_contains_earlier_boundaries_round_trips(parts: list[Part], content: bytes) -> None:
    """Issue: a fixed boundary can occur in the file (last30days #580); here the file is a form that was sent before."""
    earlier, content_type = encode_form(parts)
    boundary = b"\r\n--" + content_type.rpartition("=")[2].encode()
    file = Part("file", content + earlier + boundary + b"--" + boundary, "form.bin")
    assert parse_form(*encode_form([*parts, file])) == [*parts, file]


@given(st.integers(60, 200), st.text(st.characters(max_codepoint=127), max_size=3))
def test_boundary_differs_for_a_file_of_the_same_size_that_contains_it(size: int, name: str) -> None:
    file = Part("file", b"x" * size, name)
    boundary = encode_form([file])[1].rpartition("=")[2].encode()
    copy = replace(file, content=(b"\r\n--" + boundary + b"--").ljust(size))
    assert boundary.decode() not in encode_form([copy])[1]


@pytest.mark.parametrize("cut", range(0, 64, 5))
def test_file_of_all_bytes_and_delimiters_round_trips(cut: int) -> None:
    """Issue: proxies read forms as text (CodexPlusPlus #1496)."""
    content = (bytes(range(256)) * 40)[cut:] + b"\r\n--" + b"\r\n--b-" * 3 + b"\r\n--b"[: cut % 6] + b"\r\n\r\n\xff"
    part = Part("file", content, "a.bin", "application/octet-stream")
    for boundary in ("b--x", "--b-", "openai-8gapjdzwj1h"):
        assert parse_form(client_form([part], boundary), f"multipart/form-data; boundary={boundary}") == [part]
    assert parse_form(*encode_form([part])) == [part]


def test_forms_without_parts_and_with_the_largest_number_of_parts() -> None:
    assert parse_form(*encode_form([])) == []
    parts = [Part("a", b"%d" % number) for number in range(MAX_FORM_PARTS)]
    assert parse_form(*encode_form(parts)) == parts


def test_part_with_the_longest_header_round_trips() -> None:
    prefix = len('Content-Disposition: form-data; name=""')
    part = Part("n" * (MAX_PART_HEADER_BYTES - prefix), b"x")
    assert parse_form(*encode_form([part])) == [part]


@given(FORMS, st.data())
def test_damaged_form_is_parsed_or_rejected(parts: list[Part], data: st.DataObject) -> None:
    body, content_type = encode_form(parts)
    start = data.draw(st.integers(0, len(body)))
    removed = data.draw(st.integers(0, 5))
    damaged = body[:start] + data.draw(st.binary(max_size=5)) + body[start + removed :]
    assert error_code(damaged, content_type) in (None, "InvalidForm")


# --- header injection ---


@given(
    st.lists(
        st.builds(
            Part,
            NAMES | st.sampled_from(["a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\rX-Evil: 1", 'a"\r\n\r\nb', "\r\n--b\r\n"]),
            st.just(b"x"),
            st.none() | NAMES | st.sampled_from(["a\r\nX-Evil: 1\r\n\r\n", "a\n\nb", '"\r\nContent-Type: text/html']),
            st.none() | CONTENT_TYPES | st.sampled_from(["a/b\r\nX-Evil: 1", "a/b\n\nbody", "a/b\rX-Evil: 1", "\r\n"]),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_names_and_types_create_no_header_and_no_part(parts: list[Part]) -> None:
    """Judged by the standard library's parser of MIME messages, which also accepts lone CR and LF."""
    body, content_type = encode_form(parts)
    message = email.message_from_bytes(b"Content-Type: %b\r\n\r\n%b" % (content_type.encode(), body))
    assert message.is_multipart()
    received: Any = message.get_payload()
    assert len(received) == len(parts)
    for received_part, part in zip(received, parts, strict=True):
        assert received_part.keys() == ["Content-Disposition", *(["Content-Type"] if part.content_type else [])]
        assert received_part.get_payload() == "x"


@pytest.mark.parametrize(
    "disposition",
    [
        'name="file"; filename="a%0D%0AX-Evil: 1%22b.wav"',
        "name=file; filename*=UTF-8''a%0D%0AX-Evil%3A%201%22b.wav",
        'name="file"; filename="=?utf-8?Q?a=0D=0AX-Evil:_1=22b.wav?="',
        'name="file"; filename="=?utf-8?B?YQ0KWC1FdmlsOiAxImIud2F2?="',
    ],
)
def test_file_name_is_decoded_without_control_characters(disposition: str) -> None:
    part = parse_part(f"Content-Disposition: form-data; {disposition}")
    assert part.file_name == 'aX-Evil: 1"b.wav'
    assert encode_form([part])[0].count(b"\r\n") == 5  # after the boundaries, the header, the blank line, the content


@pytest.mark.parametrize("name", ["a\r\nb", 'a"b', "%22", "a%0D%0Ab", "\n"])
def test_escaped_names_are_read_as_browsers_mean_them(name: str) -> None:
    part = parse_part(f'Content-Disposition: form-data; name="{browser_escape(name)}"')
    assert part.name == name.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")


# --- names as clients send them ---


@pytest.mark.parametrize(
    ("disposition", "name", "file_name"),
    [
        ("name=audio; filename=speech.wav", "audio", "speech.wav"),  # .NET without quotes
        ("name=upload0; filename=speech.wav", "upload0", "speech.wav"),
        ('name="audio";filename="a.wav"', "audio", "a.wav"),
        ('filename="a.wav"; name="audio"', "audio", "a.wav"),
        ('name="file"; filename=""', "file", ""),
        ('name="file"; filename="a;b.wav"', "file", "a;b.wav"),
        ('name="file"; filename="a\\"b.wav"', "file", 'a"b.wav'),  # curl before 7.81
        ('name="file"; filename="a%22b.wav"', "file", 'a"b.wav'),
        ('name="file"; filename="Recording-06.09.2026 23:21.webm"', "file", "Recording-06.09.2026 23:21.webm"),
        ('name="file"; filename="C:\\Users\\me\\a.wav"', "file", "a.wav"),  # Internet Explorer
        ('name="file"; filename="../../a.wav"', "file", "../../a.wav"),
        ('name="file"; filename="a\\b\\"', "file", "a_b_"),
        ("name=file; filename*=utf-8''a%5Cb", "file", "a_b"),
        ('name="file"; filename="image"', "file", "image"),
        ('name="file"; filename="größe.wav"', "file", "größe.wav"),
        ("name=file; filename*=UTF-8''gr%C3%B6%C3%9Fe.wav", "file", "größe.wav"),  # requests before 2.32
        ("name=file; filename*=utf-8'de'a%20b.wav", "file", "a b.wav"),
        ("name=file; filename=\"=?utf-8?B?w6kud2F2?=\"; filename*=utf-8''%C3%A9.wav", "file", "é.wav"),  # .NET
        ("name=file; filename=\"x.wav\"; filename*=utf-8''%C3%A9.wav", "file", "é.wav"),
        ('name=file; filename="=?utf-8?B?w6kud2F2?="', "file", "é.wav"),
        ('name=file; filename="=?UTF-8?q?=C3=A9_1.wav?="', "file", "é 1.wav"),
        ('name=file; filename="=?iso-8859-1?Q?=E9.wav?="', "file", "é.wav"),
        ('name=file; filename="=?x-none?Q?a?="', "file", "=?x-none?Q?a?="),
        ('name=file; filename="=?utf-7?Q?+2AA-?="', "file", "=?utf-7?Q?+2AA-?="),  # half of a character
        ('name=file; filename="=?unicode_escape?Q?=5Cud800?="', "file", "=?unicode_escape?Q?=5Cud800?="),
        ('name=file; filename="=?ütf-8?Q?a?="', "file", "=?ütf-8?Q?a?="),
        ('name=file; filename="=?utf-8?B?x?="', "file", "=?utf-8?B?x?="),
        ('name=file; filename="=?utf-8?B?/w==?="', "file", "=?utf-8?B?/w==?="),
        ('name="timestamp_granularities[]"', "timestamp_granularities[]", None),
        ('name=""', "", None),
        ('filename="a.wav"', "", "a.wav"),
    ],
)
def test_names_are_read_in_every_notation(disposition: str, name: str, file_name: str | None) -> None:
    part = parse_part(f"Content-Disposition: form-data; {disposition}")
    assert (part.name, part.file_name, part.is_file) == (name, file_name, file_name is not None)


@pytest.mark.parametrize("name", ["\\", "a\\", "a\\b", '\\\\"', "model\\; x="])
def test_backslash_in_the_name_of_a_part_is_an_invalid_form(name: str) -> None:
    """Servers differ in whether it is an escape: the gateway could check one field and the provider read another."""
    check_invalid(raw_form(raw_part(f'Content-Disposition: form-data; name="{name}"')))
    check_invalid(raw_form(raw_part(f'Content-Disposition: form-data; name="{name}"; filename="a"')))


@pytest.mark.parametrize("header", ["Content-Disposition", "content-disposition", "CONTENT-DISPOSITION"])
def test_header_names_of_parts_are_case_insensitive(header: str) -> None:
    part = parse_part(f"content-type: audio/wav\r\n{header}: Form-Data; name=file; filename=a.wav")
    assert part == Part("file", b"x", "a.wav", "audio/wav")


@pytest.mark.parametrize(
    "content_type",
    [None, "application/octet-stream", "audio/webm;codecs=opus", "audio/x-wav", "text/plain; charset=utf-8", "x"],
)
def test_type_of_a_part_is_kept_and_never_guessed(content_type: str | None) -> None:
    """Issues: DeepTutor #948, openwhispr #1249."""
    assert parse_part(FILE + (f"\r\nContent-Type: {content_type}" if content_type else "")).content_type == content_type


@pytest.mark.parametrize("name", ["a.opus", "a.ogg", "a.m4a", "a", ".wav", "a.WAV", "a.tar.gz", "a b.wav"])
def test_form_preserves_the_extension_of_a_file(name: str) -> None:
    """Issues: providers decide by it (OmniRoute #10588, DictateKeyboard #322)."""
    assert parse_part(f'Content-Disposition: form-data; name="file"; filename="{name}"').file_name == name


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=b", "b"),
        ("Multipart/Form-Data;BOUNDARY=b", "b"),
        ('multipart/form-data; boundary="b"', "b"),
        ('multipart/form-data; boundary="a b=c/d:e?(f),g"', "a b=c/d:e?(f),g"),
        ('multipart/form-data; charset=utf-8; boundary="----=_Part_1_2.3"', "----=_Part_1_2.3"),
        ("multipart/form-data; boundary=b; charset=utf-8", "b"),
        ("multipart/form-data; boundary=0f6e1d7a-5c3b-4a29-8e10-2d9c7b6a5f41", "0f6e1d7a-5c3b-4a29-8e10-2d9c7b6a5f41"),
        ("multipart/form-data; boundary='b'", "'b'"),
        ("multipart/form-data; boundary=" + "x" * 200, "x" * 200),
    ],
)
def test_boundary_is_read_in_every_notation(content_type: str, boundary: str) -> None:
    """Issue: quoted boundaries and bare UUIDs are refused (dust #26784)."""
    assert parse_form(raw_form(raw_part(FIELD), boundary=boundary), content_type) == [Part("model", b"x")]


# --- invalid forms ---


@pytest.mark.parametrize(
    "content_type",
    [
        *("", "multipart/form-data", "multipart/form-data; boundary=", 'multipart/form-data; boundary=""'),
        *("multipart/mixed; boundary=b", "multipart/form-data-x; boundary=b", "application/x-www-form-urlencoded"),
        *("audio/wav", "audio/mpeg", "application/octet-stream", "application/json", "text/plain; boundary=b"),
        *("multipart/form-data; boundary=c", "multipart/form-data; boundary=B", 'multipart/form-data; boundary="b '),
        *('multipart/form-data; boundary="\n"', 'multipart/form-data; boundary="é"', "multipart/form-data, boundary=b"),
    ],
)
def test_other_content_type_or_boundary_is_an_invalid_form(content_type: str) -> None:
    check_invalid(raw_form(raw_part(FIELD)), content_type)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"--b",
        b"--b\r\n",
        b"model=whisper-1",
        raw_form(raw_part(FIELD), boundary="c"),
        raw_form(raw_part(FIELD)).replace(b"\r\n", b"\n"),
        raw_form(raw_part(FIELD)).replace(b"--b\r\n", b"--bc\r\n"),
        b"x" + raw_form(raw_part(FIELD)),
        raw_form(raw_part("Content-Type: text/plain")),
        raw_form(raw_part("Content-Disposition: attachment; name=file")),
        raw_form(raw_part("Content-Disposition")),
        raw_form(raw_part(FIELD + "\r\n continuation\r\n \r\n")),
        raw_form(raw_part(FIELD + "\r\nX Y: z")),
        raw_form(raw_part('Content-Disposition: form-data; name="café"'.encode("latin-1"))),
        raw_form(raw_part(FIELD + "\r\nContent-Length: 2")),
        raw_form(raw_part(FIELD + "\r\nContent-Length: 0")),
        raw_form(raw_part(FIELD + "\r\nContent-Length: -1")),
        raw_form(raw_part(FIELD + "\r\nX-A: " + "x" * MAX_PART_HEADER_BYTES)),
        raw_form(raw_part('Content-Disposition: form-data; name="%s"' % ("x" * MAX_PART_HEADER_BYTES))),
        b"--b\r\nX-A: " + b"x" * 2 * MAX_PART_HEADER_BYTES,
        raw_form(raw_part(FIELD + "\r\nX-A: 1" * 8)),
        raw_form(*[raw_part(FIELD)] * (MAX_FORM_PARTS + 1)),
    ],
    ids=lambda body: repr(body[:40]),
)
def test_malformed_body_is_an_invalid_form(body: bytes) -> None:
    """Issue: malformed forms are a 500 (vllm-studio #194)."""
    check_invalid(body)


@given(st.lists(PARTS, min_size=1, max_size=3), st.data())
def test_form_without_its_end_is_an_invalid_form(parts: list[Part], data: st.DataObject) -> None:
    body, content_type = encode_form(parts)
    check_invalid(body[: data.draw(st.integers(0, len(body) - 3))], content_type)


@given(st.binary(max_size=200), st.text(max_size=40))
def test_any_body_of_any_type_is_parsed_or_an_invalid_form(body: bytes, content_type: str) -> None:
    for label in (content_type, TYPE, f"multipart/form-data; boundary={content_type}"):
        assert error_code(body, label) in (None, "InvalidForm")


# --- values ---


def test_field_that_is_not_utf_8_is_an_invalid_form_with_its_name() -> None:
    with pytest.raises(InvalidRequest) as raised:
        text_value([Part("response_format", b"\xff")], "response_format")
    assert raised.value.param == "response_format"
    assert (raised.value.fields[0].error_code, raised.value.fields[0].field_name) == ("InvalidForm", "ResponseFormat")


def test_value_is_that_of_the_first_text_field_with_the_name() -> None:
    parts = [Part("model", b"file", "m.txt"), Part("Model", b"other"), Part("model", "é".encode()), Part("model", b"2")]
    assert text_value(parts, "model") == "é"
    assert text_value(parts, "file") is None
    assert text_value([], "model") is None


@given(FORMS, st.sampled_from(["model", "file"]), ANY_TEXT)
def test_value_is_replaced_in_its_place_or_added(parts: list[Part], name: str, value: str) -> None:
    for before in (parts, [*parts, Part("model", b"m", None, "text/plain"), Part("model", b"f", "model")]):
        after = with_value(before, name, value)
        assert text_value(after, name) == value
        is_field = [part.name == name and not part.is_file for part in before]
        changed = [
            replace(p, content=value.encode()) if field else p for p, field in zip(before, is_field, strict=True)
        ]
        assert after == changed + ([] if any(is_field) else [Part(name, value.encode())])


@given(FORMS)
def test_description_of_a_form_has_its_texts_and_the_digests_of_its_files(parts: list[Part]) -> None:
    entries: list[Mapping[str, Any]] = json.loads(describe_form(parts))
    assert [entry["name"] for entry in entries] == [part.name for part in parts]
    for entry, part in zip(entries, parts, strict=True):
        if part.is_file:
            digest = hashlib.sha256(part.content).hexdigest()
            assert (entry["fileName"], entry["contentType"]) == (part.file_name, part.content_type)
            assert (entry["bytes"], entry["sha256"]) == (len(part.content), digest)
        else:
            assert entry["value"] == part.content.decode(errors="replace")


# --- limits of request bodies ---


def test_form_of_the_largest_size_is_read_and_a_larger_one_is_a_413() -> None:
    """Issue: a proxy drops the connection or reports a parsing error (yt-short-clipper #23)."""
    headers = {"content-type": TYPE}
    largest = b"\xff" * MAX_FORM_BYTES
    assert read_body(form_event(largest), headers) == largest
    with pytest.raises(PayloadTooLarge, match=r"The form exceeds 4,500,000 bytes: send .* \(Opus, MP3\), or split"):
        read_body(form_event(largest + b"x"), headers)


@given(FORMS, st.sampled_from(["", "multipart/form-data;boundary=x", "MULTIPART/Form-Data; boundary=x"]))
def test_form_of_an_event_is_read_byte_for_byte(parts: list[Part], label: str) -> None:
    """Issue: uploads corrupted by a text encoding (bref #271)."""
    body, content_type = encode_form(parts)
    assert read_body(form_event(body), {"content-type": label or content_type, "content-length": "1"}) == body


def test_compressed_form_is_a_415() -> None:
    with pytest.raises(UnsupportedMediaType, match="Content-Encoding 'gzip'"):
        read_body(form_event(b"\x1f\x8b"), {"content-type": TYPE, "content-encoding": "gzip"})


def test_form_that_api_gateway_passed_as_text_is_a_400() -> None:
    """Issue: without the binary media type, files are corrupted silently (serverless-apigw-binary #57)."""
    body = raw_form(raw_part(FILE, b"RIFF\xff\xfe\x00"))
    event = {"body": body.decode(errors="replace"), "isBase64Encoded": False}
    for headers in ({"content-length": str(len(body))}, {}):
        with pytest.raises(InvalidRequest, match="damaged"):
            read_body(event, {"content-type": TYPE, **headers})
