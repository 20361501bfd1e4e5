"""The members of AI Server's media requests, from the form, the query string or a JSON body, and files of any name.

Clients differ in how they send them: names in any case, files under the name of the file or of the member
(docs/use/audio.md). Members that these requests do not have are ignored, as AI Server does.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from aiserver.limits import MAX_NAME_CHARS
from aiserver.wire import forms
from aiserver.wire.binding import scalar_value
from aiserver.wire.forms import Part
from aiserver.wire.media_types import is_form
from aiserver.wire.requests import GATEWAY_FIELDS, ModelRequest, parse_options, root_members, validate_json
from aiserver.wire.schemas import fold_name
from aiserver.wire.validation import invalid_field

_INTEGER = re.compile(r"[0-9]{1,18}")
_OPTIONS = GATEWAY_FIELDS | {"state": "state"}


@dataclass(frozen=True)
class Members:
    """The members of a request by folded name, and its files."""

    values: Mapping[str, Any]
    files: Sequence[Part]

    def has(self, name: str) -> bool:
        return self.values.get(fold_name(name)) is not None

    def text(self, name: str) -> str:
        """A string member; "" when it is absent. Raises: InvalidRequest."""
        value = self.values.get(fold_name(name))
        if value is None:
            return ""
        if not isinstance(value, str):
            raise invalid_field("InvalidType", name, f"'{name}' must be a string")
        return value

    def number(self, name: str, lowest: float, highest: float) -> float | None:
        """A number member, or its text; None when it is absent. Raises: InvalidRequest, when it is out of range."""
        value = self.values.get(fold_name(name))
        if value is None:
            return None
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        except OverflowError:
            number = math.inf
        if math.isnan(number):
            raise invalid_field("InvalidType", name, f"'{name}' must be a number")
        if not lowest <= number <= highest:
            limit = f"at least {lowest:g}" if highest == math.inf else f"{lowest:g} to {highest:g}"
            raise invalid_field("InvalidRange", name, f"'{name}' must be {limit}")
        return number

    def integer(self, name: str, lowest: int, highest: float) -> int | None:
        """An integer member, or its text; None when it is absent. Raises: InvalidRequest, when it is out of range."""
        number = self.number(name, lowest, highest)
        if number is None:
            return None
        if not number.is_integer():
            raise invalid_field("InvalidType", name, f"'{name}' must be an integer")
        value = self.values[fold_name(name)]
        is_exact = isinstance(value, int) or (isinstance(value, str) and _INTEGER.fullmatch(value))
        return int(value if is_exact else number)  # a float has 53 bits only

    def model(self, default: str = "") -> str:
        """The model, or `default`. Raises: InvalidRequest, when it is too long, or there is neither."""
        model = self.text("model") or default
        if not model:
            raise invalid_field("NotEmpty", "model", "'model' must not be empty")
        if len(model) > MAX_NAME_CHARS:
            raise invalid_field("InvalidType", "model", f"'model' should have at most {MAX_NAME_CHARS} characters")
        return model

    def file(self, name: str) -> Part:
        """The file named `name` in any case, or the only file. Raises: InvalidRequest."""
        return self.assign_files(name)[name]

    def assign_files(self, *names: str) -> dict[str, Part]:
        """A file for each name, by its own name in any case; the only other file is the only missing one.

        Raises: InvalidRequest, when a file is missing or empty, or when it is not clear which one it is.
        """
        named = {fold_name(file.name): file for file in self.files if fold_name(file.name) in names}
        others = [file for file in self.files if fold_name(file.name) not in names]
        missing = [name for name in names if name not in named]
        if len(missing) == len(others) == 1:
            named[missing.pop()] = others.pop()
        if missing and not others:
            raise invalid_field("NotEmpty", missing[0], f"'{missing[0]}' is required: a file in a form")
        if missing or len(self.files) > len(named) + len(others):
            name, count = (missing or names)[0], len(self.files)
            raise invalid_field("InvalidForm", name, f"The form has {count} files: name one of them '{name}'")
        for name, file in named.items():
            if not file.content:
                raise invalid_field("NotEmpty", name, f"'{name}' must not be empty")
        return named


def read_members(body: bytes, content_type: str, query: Mapping[str, str]) -> Members:
    """The members of the body before those of the query string. Raises: InvalidRequest."""
    values: dict[str, Any] = {fold_name(name): value for name, value in query.items() if value}
    if is_form(content_type):
        parts = forms.parse_form(body, content_type)
        values |= {fold_name(part.name): part.text for part in parts if not part.is_file and part.content}
        return Members(values, [part for part in parts if part.is_file])
    if body.strip():
        text = validate_json(body)
        values |= {fold_name(member.key): scalar_value(text, member) for member in root_members(text)}
    return Members(values, [])


def with_options(request: ModelRequest, members: Members, name: str) -> ModelRequest:
    """The request named `name`, with its options. Raises: InvalidRequest."""
    fields = {option: members.values[folded] for folded, option in _OPTIONS.items() if members.values.get(folded)}
    return replace(request, options=parse_options(fields), name=name)
