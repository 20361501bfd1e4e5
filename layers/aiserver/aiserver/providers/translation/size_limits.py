"""Counts the content blocks of a whole answer before they are built: 60 MB of small ones would take 700 MB."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from aiserver.limits import MAX_ANSWER_VALUES, MAX_CHOICES, MAX_CONTENT_BLOCKS
from aiserver.providers.translation.adapter import EmptyResponse
from aiserver.wire.json_text import count_values


def check_response_size(body: bytes, shape: Callable[[type[msgspec.Struct]], Any]) -> None:
    """`shape` is the type of an answer whose blocks are of the type that it is given. Raises: NoAnswer.

    Each block is an object, so the exact count is taken only where there are as many braces.
    """
    if count_values(body, MAX_ANSWER_VALUES) > MAX_ANSWER_VALUES:
        raise EmptyResponse(f"the response has more than {int(MAX_ANSWER_VALUES):,} JSON values")
    if body.count(b"{") <= MAX_CONTENT_BLOCKS:
        return
    count = 0

    def one_more(_: msgspec.Struct) -> None:
        nonlocal count
        count += 1
        if count > MAX_CONTENT_BLOCKS:
            raise ValueError

    counted = msgspec.defstruct("Counted", [], namespace={"__post_init__": one_more}, gc=False)
    with suppress(msgspec.DecodeError, RecursionError):  # what is wrong is said when the answer is read
        msgspec.json.decode(body, type=shape(counted))
    check_block_count(count)


def check_block_count(count: int) -> None:
    """Raises: NoAnswer, where an answer has too many blocks."""
    if count > MAX_CONTENT_BLOCKS:
        raise EmptyResponse(f"the response has more than {int(MAX_CONTENT_BLOCKS):,} content blocks")


def check_candidates(count: int) -> None:
    """Raises: NoAnswer, where an answer has more candidates than a streamed one may have choices."""
    if count > MAX_CHOICES:
        raise EmptyResponse(f"the response has more than {int(MAX_CHOICES):,} candidates")
