"""Members of AI Server's media requests: their sources, their types and ranges, and which file is which."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiserver.errors import InvalidRequest
from aiserver.limits import MAX_NAME_CHARS
from aiserver.wire.aiserver_members import Members, read_members
from aiserver.wire.forms import Part, encode_form
from aiserver.wire.schemas import fold_name

JSON = "application/json"
SPELLINGS = ("batchSize", "BatchSize", "batchsize", "BATCHSIZE", "batch_size", "batch-size")


def members(**values: Any) -> Members:
    return Members({fold_name(name): value for name, value in values.items()}, [])


def file(name: str, content: bytes = b"x") -> Part:
    return Part(name, content, f"{name}.png")


def check_error(call: Callable[[], object], error_code: str, name: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        call()
    assert (raised.value.status, raised.value.param) == (400, name or None)
    assert [(error.error_code, error.field_name) for error in raised.value.fields] == [
        (error_code, name[:1].upper() + name[1:])
    ]


def same(value: object, expected: object) -> bool:
    return value == expected and type(value) is type(expected)


# --- sources ---


@pytest.mark.parametrize("name", SPELLINGS)
def test_members_are_read_by_any_spelling(name: str) -> None:
    form, content_type = encode_form([Part(name, b"3"), file("image")])
    for found in (
        read_members(form, content_type, {}),
        read_members(b"", "", {name: "3"}),
        read_members(json.dumps({name: "3"}).encode(), JSON, {}),
        read_members(json.dumps({name: "3"}).encode(), "", {}),
    ):
        assert found.values == {"batchsize": "3"}
        assert found.has("batchSize")
        assert found.integer("batchSize", 1, 10) == 3


@given(
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from(["", "1"])),
    st.dictionaries(st.sampled_from(["A", "b", "d"]), st.sampled_from(["", "2"])),
    st.booleans(),
)
def test_members_of_the_body_override_those_of_the_query(
    query: Mapping[str, str], body: Mapping[str, str], is_form: bool
) -> None:
    found_in_body = {name.lower(): value for name, value in body.items() if value or not is_form}
    expected = {name: value for name, value in query.items() if value} | found_in_body
    if is_form:
        text, content_type = encode_form([*[Part(name, value.encode()) for name, value in body.items()], file("f")])
    else:
        text, content_type = json.dumps(body).encode(), JSON
    assert read_members(text, content_type, query).values == expected


@pytest.mark.parametrize("body", [b"", b" \n"])
@pytest.mark.parametrize("content_type", ["", JSON, "text/plain"])
def test_empty_body_has_no_members_and_no_files(body: bytes, content_type: str) -> None:
    assert read_members(body, content_type, {}) == Members({}, [])


@pytest.mark.parametrize("body", [b"[]", b"1", b"{", b"a=1", b'{"a":NaN}', b'{"a":"\xff"}', b'{"a":Infinity}'])
def test_body_that_is_not_a_json_object_is_a_400(body: bytes) -> None:
    for content_type in (JSON, "", "application/x-www-form-urlencoded"):
        with pytest.raises(InvalidRequest):
            read_members(body, content_type, {"a": "1"})


def test_damaged_form_and_field_that_is_not_utf_8_are_400s() -> None:
    form, content_type = encode_form([Part("Seed", b"1"), file("image")])
    check_error(lambda: read_members(form[:-9], content_type, {}), "InvalidForm", "")
    check_error(lambda: read_members(*encode_form([Part("Seed", b"\xff")]), {}), "InvalidForm", "Seed")


def test_files_and_members_of_a_form_are_separated() -> None:
    parts = [Part("prompt", b"hi"), file("prompt", b"a file"), file("image"), Part("image", b"text")]
    found = read_members(*encode_form(parts), {})
    assert (found.values, list(found.files)) == ({"prompt": "hi", "image": "text"}, [parts[1], parts[2]])


# --- types and ranges ---


@pytest.mark.parametrize("value", [1, 0, True, False, 1.5, [], {}])
def test_text_of_another_type_is_a_400(value: object) -> None:
    check_error(lambda: members(prompt=value).text("prompt"), "InvalidType", "prompt")
    check_error(lambda: members(model=value).model("default"), "InvalidType", "model")


def test_absent_text_is_empty_and_absent_number_is_none() -> None:
    for found in (members(), members(seed=None)):
        assert (found.text("seed"), found.number("seed", 0, 1), found.integer("seed", 0, 1)) == ("", None, None)
        assert not found.has("seed")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, 0.0), (1, 1.0), (0.25, 0.25), ("0.25", 0.25), (".5", 0.5), ("1", 1.0), (" 1 ", 1.0), ("1e-3", 0.001)],
)
def test_number_is_read_from_a_number_or_its_text(value: object, expected: float) -> None:
    assert same(members(denoise=value).number("denoise", 0, 1), expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((1, 1), ("1", 1), (1.0, 1), ("1.0", 1), ("1e1", 10), ("+7", 7), ("007", 7), ("-0", 0), (-0.0, 0)),
        *((2**53 + 1, 2**53 + 1), (str(2**53 + 1), 2**53 + 1), (2**64 - 1, 2**64 - 1), (10**300, 10**300)),
        (1e30, int(1e30)),
    ],
)
def test_integer_is_read_exactly_from_a_number_or_its_text(value: object, expected: int) -> None:
    assert same(members(seed=value).integer("seed", 0, math.inf), expected)


@pytest.mark.parametrize("value", ["", " ", "x", "1,5", "0x1", "true", "nan", "-NaN", True, False, [], {}, "1 2"])
def test_value_that_is_not_a_number_is_an_invalid_type(value: object) -> None:
    check_error(lambda: members(seed=value).number("seed", 0, 1), "InvalidType", "seed")
    check_error(lambda: members(seed=value).integer("seed", 0, 1), "InvalidType", "seed")


@pytest.mark.parametrize("value", [1.5, "1.5", "1e-3", math.inf, "inf", "Infinity", 10**400, "9" * 400, "9" * 5000])
def test_seed_that_is_not_a_finite_integer_is_an_invalid_type(value: object) -> None:
    check_error(lambda: members(seed=value).integer("seed", 0, math.inf), "InvalidType", "seed")


def test_integer_with_thousands_of_leading_zeros_is_not_an_exception() -> None:
    with suppress(InvalidRequest):
        assert members(seed="0" * 5000 + "1").integer("seed", 0, math.inf) == 1


@pytest.mark.parametrize("value", [0, 11, -1, "0", "11", 10.5, 10**400, "inf", "-inf", math.inf, "9" * 999])
def test_number_out_of_range_is_an_invalid_range(value: object) -> None:
    check_error(lambda: members(n=value).number("n", 1, 10), "InvalidRange", "n")
    check_error(lambda: members(n=value).integer("n", 1, 10), "InvalidRange", "n")


def test_message_of_a_range_names_its_limits() -> None:
    with pytest.raises(InvalidRequest, match=r"^'width' must be 64 to 2048$"):
        members(width=63).integer("width", 64, 2048)
    with pytest.raises(InvalidRequest, match=r"^'seed' must be at least 0$"):
        members(seed=-1).integer("seed", 0, math.inf)


@given(
    st.one_of(
        *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.just([1]), st.just({"a": 1})),
        st.integers(-(10**400), 10**400),
        st.floats().map(str),
        st.integers().map(str),
    )
)
def test_any_value_is_an_integer_in_range_or_a_400(value: object) -> None:
    for highest in (10, math.inf):
        with suppress(InvalidRequest):
            found = members(seed=value).integer("seed", 0, highest)
            assert found is None if value is None else type(found) is int and 0 <= found <= highest


@pytest.mark.parametrize(
    ("model", "default", "expected"),
    [
        (None, "d", "d"),
        ("", "d", "d"),
        ("m", "d", "m"),
        ("m", "", "m"),
        ("語" * MAX_NAME_CHARS, "", "語" * MAX_NAME_CHARS),
    ],
)
def test_model_is_the_member_or_the_default(model: str | None, default: str, expected: str) -> None:
    assert members(model=model).model(default) == expected


def test_missing_model_and_long_model_are_400s() -> None:
    check_error(lambda: members().model(), "NotEmpty", "model")
    check_error(lambda: members(model="m" * (MAX_NAME_CHARS + 1)).model("d"), "InvalidType", "model")


# --- files ---


@pytest.mark.parametrize(
    ("names", "image", "mask"),
    [
        (["image", "mask"], 0, 1),
        (["mask", "image"], 1, 0),
        (["Image", "MASK"], 0, 1),
        (["image", "upload1"], 0, 1),
        (["upload0", "mask"], 0, 1),
        (["mask", "a.png"], 1, 0),
        (["", "Image"], 1, 0),
        (["mask.png", "image"], 1, 0),
        (["image", ""], 0, 1),
        (["x", "image", "y", "mask"], 1, 3),
    ],
)
def test_two_files_are_assigned_by_name_or_as_the_missing_one(names: Sequence[str], image: int, mask: int) -> None:
    files = [file(name, str(index).encode()) for index, name in enumerate(names)]
    assigned = Members({}, files).assign_files("image", "mask")
    assert assigned == {"image": files[image], "mask": files[mask]}


@pytest.mark.parametrize("names", [["image"], ["Image", "mask"], ["x"], ["x.png", "IMAGE"], [""], ["a", "b", "image"]])
def test_one_file_is_the_named_one_or_the_only_one(names: Sequence[str]) -> None:
    files = [file(name) for name in names]
    (expected,) = [item for item in files if item.name.lower() == "image" or len(files) == 1]
    assert Members({}, files).file("image") is expected


@pytest.mark.parametrize(
    ("names", "error_code", "name"),
    [
        ([], "NotEmpty", "image"),
        (["image"], "NotEmpty", "mask"),
        (["Mask"], "NotEmpty", "image"),
        (["upload0", "upload1"], "InvalidForm", "image"),
        (["a.png", "b.png"], "InvalidForm", "image"),
        (["image", "a", "b"], "InvalidForm", "mask"),
        (["image", "Image", "mask"], "InvalidForm", "image"),
        (["image", "mask", "MASK"], "InvalidForm", "image"),
        (["image", "image", "x"], "InvalidForm", "image"),
    ],
)
def test_unclear_or_missing_files_are_a_400(names: Sequence[str], error_code: str, name: str) -> None:
    check_error(lambda: Members({}, [file(item) for item in names]).assign_files("image", "mask"), error_code, name)


@pytest.mark.parametrize("name", ["image", "mask"])
def test_empty_file_is_a_400(name: str) -> None:
    files = [file(item, b"" if item == name else b"x") for item in ("image", "mask")]
    check_error(lambda: Members({}, files).assign_files("image", "mask"), "NotEmpty", name)
