"""Runs MiniStack, the AWS services of the embedded cloud, as a child on loopback with nothing of our environment."""

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
from local.state_dir import StateDirFailed, locked, make_private
from local.template import REGION

_READY_S = 60.0  # it needs 1 to 2 s; a busy laptop's first start compiles bytecode
_POLL_S = 0.05
_SAVE_S = 20.0  # how long it may write its state when asked to stop
_PORT_TRIES = 3
_DURABLE = Path(__file__).with_name("durable.py")


class CloudFailed(Exception):
    """The embedded cloud could not start; the message says what to do or where to look."""


@contextlib.contextmanager
def running(
    folder: Path, *, state_dir: Path | None = None, between: Callable[[str], str] = lambda url: url
) -> Generator[str]:
    """Run MiniStack until the block ends; yields its endpoint URL. Log and scratch files go to `folder`.

    The handlers it runs call AWS at the address that `between` makes of MiniStack's own.
    """
    with contextlib.ExitStack() as stack:
        lock = None
        if state_dir is not None:
            try:
                lock = stack.enter_context(locked(state_dir))
            except StateDirFailed as failed:
                raise CloudFailed(str(failed)) from failed
        port = 0
        for _ in range(_PORT_TRIES):
            port = _port(state_dir)
            log = folder / "ministack.log"
            child = _start(environment(port, folder, state_dir, between), folder, log, lock)
            try:
                if not _wait_until_ready(child, port, log):
                    continue  # somebody took the port between our choice and its bind
                yield f"http://127.0.0.1:{port}"
                return
            finally:
                subprocesses.stop(child, grace_s=_SAVE_S if state_dir else 0)
    kept = f": {state_dir} names queues by port {port}, which another program has taken" if state_dir else ""
    raise CloudFailed(f"MiniStack found no free port in {_PORT_TRIES} tries{kept}")


def checkpoint(endpoint_url: str) -> None:
    """Have MiniStack write all of its state now, and each later change by itself. Raises: CloudFailed."""
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
    """With a state folder it keeps the folder's lock and our standard error, to say there what it cannot write."""
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


def environment(port: int, folder: Path, state_dir: Path | None, between: Callable[[str], str]) -> dict[str, str]:
    """All that MiniStack, and so every handler it runs, sees: it hands its whole environment to them."""
    scratch = folder / "tmp"
    shutil.rmtree(scratch, ignore_errors=True)  # what a killed run unpacked
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
        "DOCKER_HOST": f"unix://{scratch}/no-docker.sock",  # it stops every container it takes for its own
        "LAMBDA_EXECUTOR": "local",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": between(f"http://127.0.0.1:{port}"),
        **aws.CREDENTIALS,
    }
    if inherited := os.environ.get("PYTHONPATH"):  # tests put a guard there that allows loopback only
        variables["PYTHONPATH"] = inherited
    if state_dir is not None:
        variables |= {
            "PERSIST_STATE": "1",
            "STATE_DIR": str(state_dir / "services"),
            "S3_PERSIST": "1",  # without it bodies vanish while their names stay
            "S3_DATA_DIR": str(state_dir / "s3"),
        }
    return variables


def _wait_until_ready(child: subprocesses.Child, port: int, log: Path) -> bool:
    """True once it answers, false if its port was taken."""
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        if child.poll() is not None:
            tail = log.read_text(errors="replace")[-2000:]
            if "already in use" in tail:
                return False
            raise CloudFailed(f"MiniStack ended with status {child.returncode}; its log ({log}) ends:\n{tail}")
        if _healthy(port):
            return True
        time.sleep(_POLL_S)
    raise CloudFailed(f"MiniStack was not ready after {_READY_S:.0f} s; see {log}")


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/_ministack/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _port(state_dir: Path | None) -> int:
    """A free port; with kept state that of the first run, which is in the addresses MiniStack keeps queues by."""
    kept = state_dir / "port" if state_dir else None
    try:
        if kept and (text := kept.read_text() if kept.exists() else ""):
            return int(text)
        port = _free_port()
        if kept:
            kept.write_text(str(port))
            make_private(kept)
        return port
    except (OSError, ValueError) as error:
        raise CloudFailed(f"{kept}, which holds the port that queues are named by, cannot be used: {error}") from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
