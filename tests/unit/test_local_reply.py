"""A streamed response's head is parsed, its body forwarded, and a disconnect of its caller detected."""

import socket
from collections.abc import Callable
from typing import Any

import pytest

from local.streamed_response import HEAD_TERMINATOR, MAX_HEAD_BYTES, MalformedStream, StreamedResponse

PATIENCE_S = 20


def test_response_is_disconnected_on_hangup_or_timeout() -> None:
    server_socket, client_socket = socket.socketpair()
    with server_socket, client_socket:
        arguments: dict[str, Any] = {"caller": server_socket, "send_head": lambda head: [].append}
        assert not StreamedResponse(**arguments, timeout_s=PATIENCE_S, idle_s=PATIENCE_S).is_disconnected()
        assert StreamedResponse(**arguments, timeout_s=0, idle_s=PATIENCE_S).is_disconnected()
        assert StreamedResponse(**arguments, timeout_s=PATIENCE_S, idle_s=0).is_disconnected()
        response = StreamedResponse(**arguments, timeout_s=PATIENCE_S, idle_s=PATIENCE_S)
        client_socket.sendall(b"its next request")
        assert not response.is_disconnected()
        assert server_socket.recv(100) == b"its next request"
        client_socket.close()
        assert response.is_disconnected()
        assert not response.is_late


@pytest.mark.parametrize("size", [1, 7, 100], ids=str)
def test_head_is_parsed_from_chunks_of_any_size(size: int) -> None:
    heads: list[Any] = []
    chunks: list[bytes] = []
    server_socket, client_socket = socket.socketpair()

    def send_head(head: Any) -> Callable[[bytes], None]:
        heads.append(head)
        return chunks.append

    with server_socket, client_socket:
        response = StreamedResponse(server_socket, send_head, timeout_s=PATIENCE_S)
        content = b'{"statusCode": 200}' + HEAD_TERMINATOR + bytes(3) + b"body" + HEAD_TERMINATOR
        for start in range(0, len(content), size):
            response.write(content[start : start + size])
        response.end()
    assert heads == [{"statusCode": 200}]
    assert b"".join(chunks) == bytes(3) + b"body" + HEAD_TERMINATOR
    assert chunks[-1] == b""


def test_head_over_the_size_limit_without_terminator_is_rejected() -> None:
    server_socket, client_socket = socket.socketpair()
    with server_socket, client_socket:
        response = StreamedResponse(server_socket, lambda head: [].append, timeout_s=PATIENCE_S)
        response.write(b"x" * MAX_HEAD_BYTES)
        with pytest.raises(MalformedStream):
            response.end()
        with pytest.raises(MalformedStream):
            response.write(b"x")


@pytest.mark.parametrize("head", [b"", b"nonsense", b"\xff", b"[]", b'"x"', b"{}"], ids=repr)
def test_head_without_a_status_is_rejected(head: bytes) -> None:
    server_socket, client_socket = socket.socketpair()
    with server_socket, client_socket:
        response = StreamedResponse(server_socket, lambda head: [head["statusCode"]].append, timeout_s=PATIENCE_S)
        with pytest.raises(MalformedStream):
            response.write(head + HEAD_TERMINATOR + b"body")
        assert not response.has_begun
