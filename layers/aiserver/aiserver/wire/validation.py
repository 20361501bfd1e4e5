"""Validation errors, with field names in OpenAI's and AI Server's notation."""

from aiserver.errors import FieldError, InvalidRequest

FieldPath = tuple[str | int, ...]  # ("messages", 0, "role")


def format_path(path: FieldPath) -> str:
    """`messages[0].role`: the notation of OpenAI's `param`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def field_error(path: FieldPath, problem: str) -> FieldError:
    """`'messages[0].role' must not be empty`, for AI Server's field `Messages[0].Role`."""
    return FieldError(
        "NotEmpty" if problem == "must not be empty" else "InvalidType",
        _pascal_path(path),
        f"'{format_path(path)}' {problem}",
    )


def invalid_field(error_code: str, name: str, message: str) -> InvalidRequest:
    """An InvalidRequest that names the invalid member by its path: `messages[0].role`."""
    return InvalidRequest(
        message, param=name or None, fields=(FieldError(error_code, _pascal_path(tuple(name.split("."))), message),)
    )


def _pascal_path(path: FieldPath) -> str:
    return format_path(tuple(part if isinstance(part, int) else _pascal_case(part) for part in path))


def _pascal_case(name: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in name.split("_"))
