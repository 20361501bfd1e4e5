"""Counts the content blocks of a complete response before decoding them: 60 MB of small ones would take 700 MB."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from aiserver.limits import MAX_CHOICES, MAX_CONTENT_BLOCKS, MAX_RESPONSE_VALUES
from aiserver.providers.adapters.base.adapter import UnusableResponse
from aiserver.wire.json_text import count_values


def check_response_size(body: bytes, response_type: Callable[[type[msgspec.Struct]], Any]) -> None:
    """`response_type` returns the response type for a given type of content block. Raises: UnusableResponse.

    Each block is an object, so blocks are counted exactly only when the body has that many braces.
    """
    if count_values(body, MAX_RESPONSE_VALUES) > MAX_RESPONSE_VALUES:
        raise UnusableResponse(f"the response has more than {int(MAX_RESPONSE_VALUES):,} JSON values")
    if body.count(b"{") <= MAX_CONTENT_BLOCKS:
        return
    count = 0

    def count_block(_: msgspec.Struct) -> None:
        nonlocal count
        count += 1
        if count > MAX_CONTENT_BLOCKS:
            raise ValueError

    block_type = msgspec.defstruct("Counted", [], namespace={"__post_init__": count_block}, gc=False)
    with suppress(msgspec.DecodeError, RecursionError):  # map_response reports invalid JSON
        msgspec.json.decode(body, type=response_type(block_type))
    check_block_count(count)


def check_block_count(count: int) -> None:
    """Raises: UnusableResponse, when a response has too many content blocks."""
    if count > MAX_CONTENT_BLOCKS:
        raise UnusableResponse(f"the response has more than {int(MAX_CONTENT_BLOCKS):,} content blocks")


def check_candidates(count: int) -> None:
    """Raises: UnusableResponse, when a response has more candidates than a stream may have choices."""
    if count > MAX_CHOICES:
        raise UnusableResponse(f"the response has more than {int(MAX_CHOICES):,} candidates")
