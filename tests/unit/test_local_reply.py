"""A streamed answer's head is found, its body passed on, and its caller watched."""

import socket
from collections.abc import Callable
from typing import Any

import pytest

from local.streamed_response import HEAD_ENDS, MAX_HEAD_BYTES, MalformedStream, Reply

PATIENCE_S = 20


def test_a_reply_is_gone_when_its_caller_or_its_time_is() -> None:
    ours, callers = socket.socketpair()
    with ours, callers:
        made: dict[str, Any] = {"caller": ours, "send_head": lambda head: [].append}
        assert not Reply(**made, timeout_s=PATIENCE_S, idle_s=PATIENCE_S).is_gone()
        assert Reply(**made, timeout_s=0, idle_s=PATIENCE_S).is_gone()
        assert Reply(**made, timeout_s=PATIENCE_S, idle_s=0).is_gone()
        reply = Reply(**made, timeout_s=PATIENCE_S, idle_s=PATIENCE_S)
        callers.sendall(b"its next request")
        assert not reply.is_gone()
        assert ours.recv(100) == b"its next request"
        callers.close()
        assert reply.is_gone()
        assert not reply.is_late


@pytest.mark.parametrize("size", [1, 7, 100], ids=str)
def test_a_head_is_found_however_it_is_cut_into_pieces(size: int) -> None:
    heads: list[Any] = []
    sent: list[bytes] = []
    ours, callers = socket.socketpair()

    def send_head(head: Any) -> Callable[[bytes], None]:
        heads.append(head)
        return sent.append

    with ours, callers:
        reply = Reply(ours, send_head, timeout_s=PATIENCE_S)
        whole = b'{"statusCode": 200}' + HEAD_ENDS + bytes(3) + b"body" + HEAD_ENDS
        for at in range(0, len(whole), size):
            reply.write(whole[at : at + size])
        reply.end()
    assert heads == [{"statusCode": 200}]
    assert b"".join(sent) == bytes(3) + b"body" + HEAD_ENDS
    assert sent[-1] == b""


def test_a_head_without_an_end_is_refused_once_it_is_too_long_to_be_one() -> None:
    ours, callers = socket.socketpair()
    with ours, callers:
        reply = Reply(ours, lambda head: [].append, timeout_s=PATIENCE_S)
        reply.write(b"x" * MAX_HEAD_BYTES)
        with pytest.raises(MalformedStream):
            reply.end()
        with pytest.raises(MalformedStream):
            reply.write(b"x")


@pytest.mark.parametrize("head", [b"", b"nonsense", b"\xff", b"[]", b'"x"', b"{}"], ids=repr)
def test_a_head_that_says_no_status_is_refused(head: bytes) -> None:
    ours, callers = socket.socketpair()
    with ours, callers:
        reply = Reply(ours, lambda told: [told["statusCode"]].append, timeout_s=PATIENCE_S)
        with pytest.raises(MalformedStream):
            reply.write(head + HEAD_ENDS + b"body")
        assert not reply.has_begun
