"""Other gateways before the same upstream, each in a folder of its own under .local/peers; none is a dependency.

    PEERS=1 python -m benchmarks.streams

installs them by their own package managers. One that cannot be installed or started, or does not stream, is left out.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.raw_endpoints import Way
from local import subprocesses
from local.template import REPOSITORY

FOLDER = REPOSITORY / ".local" / "peers"
INSTALL_S = 600
START_S = 60
POLL_S = 0.1
KEY = f"sk-{secrets.token_hex(32)}"  # LiteLLM starts with none that is weak
LITELLM = """
model_list:
  - model_name: "*"
    litellm_params: {{model: "openai/*", api_base: "http://127.0.0.1:{upstream}/v1", api_key: none}}
"""
LM_PROXY = """
host = "127.0.0.1"
port = {port}
[connections.upstream]
api_type = "open_ai"
api_base = "http://127.0.0.1:{upstream}/v1/"
api_key = "none"
[routing]
"*" = "upstream.*"
[groups.default]
api_keys = ["{key}"]
"""
PORTKEY = "x-portkey-provider: openai\r\nx-portkey-custom-host: http://127.0.0.1:{upstream}/v1\r\n"


class LeftOut(Exception):
    """A peer that cannot be measured, and why."""


@dataclass(frozen=True)
class Peer:
    """`package` is what is installed; `command` is run in the peer's folder, where `config` lies, if it has one.

    `{port}` and `{upstream}` stand for the ports, in all of them.
    """

    name: str
    package: str
    command: tuple[str, ...]
    config: tuple[str, str] = ("", "")
    headers: str = ""

    @property
    def folder(self) -> Path:
        return FOLDER / self.name.split()[0].lower()


PEERS = (
    Peer(
        "LiteLLM 1.106.2",
        "litellm[proxy]==1.106.2",
        ("bin/litellm", "--config", "config.yaml", "--host", "127.0.0.1", "--port", "{port}"),
        ("config.yaml", LITELLM),
    ),
    Peer(
        "lm-proxy 3.3.2",
        "lm-proxy==3.3.2",
        ("bin/lm-proxy", "--config", "config.toml"),
        ("config.toml", LM_PROXY),
    ),
    Peer(
        "Portkey 1.15.2",
        "@portkey-ai/gateway@1.15.2",
        ("node", "node_modules/@portkey-ai/gateway/build/start-server.js", "--port={port}", "--headless"),
        headers=PORTKEY,
    ),
)


@contextmanager
def running(peer: Peer, upstream: Way) -> Generator[Way]:
    """The way through the peer, until the block ends. Raises: LeftOut."""
    _install(peer)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    def filled(text: str) -> str:
        return text.format(port=port, upstream=upstream.port, key=KEY)

    name, config = peer.config
    if name:
        (peer.folder / name).write_text(filled(config))
    program, *arguments = map(filled, peer.command)
    environment = {"PATH": os.environ["PATH"], "HOME": str(peer.folder), "LITELLM_MASTER_KEY": KEY}
    child = subprocesses.start(
        [str(peer.folder / program) if "/" in program else shutil.which(program) or program, *arguments],
        environment=environment | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"},  # else it is fetched
        folder=peer.folder,
        log=peer.folder / "log",
    ).result()
    try:
        _wait_until_open(child, port)
        yield Way(port, "/v1/chat/completions", f"authorization: Bearer {KEY}\r\n{filled(peer.headers)}")
    finally:
        subprocesses.stop(child, grace_s=0)


def _install(peer: Peer) -> None:
    done = peer.folder / ".installed"
    if done.exists():
        return
    peer.folder.mkdir(parents=True, exist_ok=True)
    if peer.package.startswith("@"):
        _run(["npm", "install", "--no-audit", "--no-fund", "--silent", peer.package], peer.folder)
    else:
        _run([sys.executable, "-m", "venv", "."], peer.folder)
        _run(["bin/python", "-m", "pip", "install", "--quiet", "--only-binary=:all:", peer.package], peer.folder)
    done.touch()


def _run(command: list[str], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=INSTALL_S)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        raise LeftOut("it could not be installed") from error


def _wait_until_open(child: subprocesses.Child, port: int) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and child.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(POLL_S)
        else:
            return
    raise LeftOut("it did not start")
