"""How a member of a request that is wrong is named, in both vocabularies."""

from aiserver.errors import FieldError, InvalidRequest

Place = tuple[str | int, ...]  # ("messages", 0, "role")


def path(place: Place) -> str:
    """`messages[0].role`: where OpenAI's `param` points."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


def field_error(place: Place, words: str) -> FieldError:
    """`'messages[0].role' must not be empty`, of AI Server's `Messages[0].Role`."""
    return FieldError(
        "NotEmpty" if words == "must not be empty" else "InvalidType", _pascal(place), f"'{path(place)}' {words}"
    )


def invalid(error_code: str, name: str, message: str) -> InvalidRequest:
    """A refusal that names the member at fault, by its path: `messages[0].role`."""
    return InvalidRequest(
        message, param=name or None, fields=(FieldError(error_code, _pascal(tuple(name.split("."))), message),)
    )


def _pascal(place: Place) -> str:
    return path(tuple(part if isinstance(part, int) else _capitalized(part) for part in place))


def _capitalized(name: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in name.split("_"))
