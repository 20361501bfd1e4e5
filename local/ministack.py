"""Runs MiniStack, the AWS services of the embedded cloud, as a subprocess on loopback with a clean environment."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from urllib.parse import urlsplit

from local import aws, subprocesses
from local.durable import CHECKPOINT_PATH
from local.state_dir import StateDirFailed, lock_folder, make_private
from local.template import REGION

_READY_S = 60.0  # a start takes 1 to 2 s; the first one on a busy laptop compiles bytecode
_POLL_S = 0.05
_SAVE_S = 20.0  # time to write its state when it is stopped
_PORT_ATTEMPTS = 3
_DURABLE = Path(__file__).with_name("durable.py")


class CloudFailed(Exception):
    """The embedded cloud could not start; the message names the next step or the log to read."""


@contextlib.contextmanager
def running(
    folder: Path, *, state_dir: Path | None = None, proxy_endpoint: Callable[[str], str] = lambda url: url
) -> Generator[str]:
    """Run MiniStack until the block ends; yields its endpoint URL. Log and scratch files go to `folder`.

    `proxy_endpoint` maps MiniStack's URL to the one that its handlers call. Raises: CloudFailed.
    """
    with contextlib.ExitStack() as stack:
        lock = None
        if state_dir is not None:
            try:
                lock = stack.enter_context(lock_folder(state_dir))
            except StateDirFailed as failure:
                raise CloudFailed(str(failure)) from failure
        port = 0
        for _ in range(_PORT_ATTEMPTS):
            port = _port(state_dir)
            log = folder / "ministack.log"
            child = _start(environment(port, folder, state_dir, proxy_endpoint), folder, log, lock)
            try:
                if not _wait_until_ready(child, port, log):
                    continue  # another program bound the port after it was chosen
                yield f"http://127.0.0.1:{port}"
                return
            finally:
                subprocesses.stop(child, grace_s=_SAVE_S if state_dir else 0)
    cause = f": the queue URLs in {state_dir} contain port {port}, which another program uses" if state_dir else ""
    raise CloudFailed(f"MiniStack found no free port in {_PORT_ATTEMPTS} attempts{cause}")


def checkpoint(endpoint_url: str) -> None:
    """Make MiniStack write its complete state now and persist every later change. Raises: CloudFailed."""
    url = urlsplit(endpoint_url)
    connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=_SAVE_S)
    try:
        connection.request("POST", CHECKPOINT_PATH)
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise CloudFailed(json.loads(body)["message"])
    except OSError as error:
        raise CloudFailed(f"MiniStack did not write its state: {error}") from error
    finally:
        connection.close()


def _start(variables: dict[str, str], folder: Path, log: Path, lock: int | None) -> subprocesses.Child:
    """Start MiniStack. With a state folder it inherits the folder's lock, and our standard error for write failures."""
    if lock is None:
        return subprocesses.start(
            [sys.executable, "-m", "ministack"], environment=variables, folder=folder, log=log
        ).result()
    with os.fdopen(os.dup(2), "w") as messages:
        return subprocesses.start(
            [sys.executable, "-P", str(_DURABLE)],
            environment={**variables, "AISERVER_MESSAGES_FD": str(messages.fileno())},
            folder=folder,
            log=log,
            pass_fds=(lock, messages.fileno()),
        ).result()


def environment(
    port: int, folder: Path, state_dir: Path | None, proxy_endpoint: Callable[[str], str]
) -> dict[str, str]:
    """The complete environment of MiniStack, which it passes to every handler it runs."""
    scratch = folder / "tmp"
    shutil.rmtree(scratch, ignore_errors=True)  # files that a killed run unpacked
    scratch.mkdir(0o700, parents=True)
    variables = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"]),
        "HOME": str(folder),  # not the developer's: ~/.aws must not be read
        "TMPDIR": str(scratch),
        "BIND_HOST": "127.0.0.1",  # its default is every interface
        "GATEWAY_PORT": str(port),
        "MINISTACK_HOST": "127.0.0.1",
        "MINISTACK_REGION": REGION,
        "IOT_MTLS_ENABLED": "0",  # would listen on 8883
        "SFTP_ENABLED": "0",  # would listen on 2222
        "DOCKER_HOST": f"unix://{scratch}/no-docker.sock",  # else MiniStack could stop containers of the developer
        "LAMBDA_EXECUTOR": "local",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": proxy_endpoint(f"http://127.0.0.1:{port}"),
        **aws.CREDENTIALS,
    }
    if python_path := os.environ.get("PYTHONPATH"):  # tests put a guard there that allows loopback only
        variables["PYTHONPATH"] = python_path
    if state_dir is not None:
        variables |= {
            "PERSIST_STATE": "1",
            "STATE_DIR": str(state_dir / "services"),
            "S3_PERSIST": "1",  # without it the bodies of objects are lost and only their keys persist
            "S3_DATA_DIR": str(state_dir / "s3"),
        }
    return variables


def _wait_until_ready(child: subprocesses.Child, port: int, log: Path) -> bool:
    """True when MiniStack is healthy, false if its port was in use. Raises: CloudFailed."""
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        if child.poll() is not None:
            tail = log.read_text(errors="replace")[-2000:]
            if "already in use" in tail:
                return False
            raise CloudFailed(f"MiniStack exited with status {child.returncode}; end of its log ({log}):\n{tail}")
        if _is_healthy(port):
            return True
        time.sleep(_POLL_S)
    raise CloudFailed(f"MiniStack was not ready after {_READY_S:.0f} s; see {log}")


def _is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/_ministack/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _port(state_dir: Path | None) -> int:
    """A free port. With a state folder, the port of its first run: MiniStack's queue URLs contain it."""
    port_file = state_dir / "port" if state_dir else None
    try:
        if port_file and (text := port_file.read_text() if port_file.exists() else ""):
            return int(text)
        port = _free_port()
        if port_file:
            port_file.write_text(str(port))
            make_private(port_file)
        return port
    except (OSError, ValueError) as error:
        raise CloudFailed(f"Cannot use {port_file}, which contains the port of the queue URLs: {error}") from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
