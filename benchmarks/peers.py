"""Other gateways in front of the same upstream, each installed in a folder under .local/peers; none is a dependency.

    PEERS=1 python -m benchmarks.streams

installs them with their package managers. A peer that cannot be installed or started, or does not stream, is skipped.
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

from benchmarks.raw_endpoints import Endpoint
from local import subprocesses
from local.template import REPOSITORY

FOLDER = REPOSITORY / ".local" / "peers"
INSTALL_S = 600
START_S = 60
POLL_S = 0.1
KEY = f"sk-{secrets.token_hex(32)}"  # LiteLLM rejects weak keys
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


class PeerSkipped(Exception):
    """A peer that cannot be measured; the message is the reason."""


@dataclass(frozen=True)
class Peer:
    """`command` runs in the peer's folder, which contains the installed `package` and `config` (file name, content).

    `{port}`, `{upstream}` and `{key}` are placeholders for the ports and the API key.
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
def run_peer(peer: Peer, upstream: Endpoint) -> Generator[Endpoint]:
    """The endpoint of the peer, which runs until the block ends. Raises: PeerSkipped, when it does not start."""
    _install(peer)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    def fill(text: str) -> str:
        return text.format(port=port, upstream=upstream.port, key=KEY)

    name, config = peer.config
    if name:
        (peer.folder / name).write_text(fill(config))
    program, *arguments = map(fill, peer.command)
    environment = {"PATH": os.environ["PATH"], "HOME": str(peer.folder), "LITELLM_MASTER_KEY": KEY}
    child = subprocesses.start(
        [str(peer.folder / program) if "/" in program else shutil.which(program) or program, *arguments],
        environment=environment | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"},  # otherwise LiteLLM downloads it
        folder=peer.folder,
        log=peer.folder / "log",
    ).result()
    try:
        _wait_until_open(child, port)
        yield Endpoint(port, "/v1/chat/completions", f"authorization: Bearer {KEY}\r\n{fill(peer.headers)}")
    finally:
        subprocesses.stop(child, grace_s=0)


def _install(peer: Peer) -> None:
    marker = peer.folder / ".installed"
    if marker.exists():
        return
    peer.folder.mkdir(parents=True, exist_ok=True)
    if peer.package.startswith("@"):
        _run(["npm", "install", "--no-audit", "--no-fund", "--silent", peer.package], peer.folder)
    else:
        _run([sys.executable, "-m", "venv", "."], peer.folder)
        _run(["bin/python", "-m", "pip", "install", "--quiet", "--only-binary=:all:", peer.package], peer.folder)
    marker.touch()


def _run(command: list[str], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=INSTALL_S)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        raise PeerSkipped("installation failed") from error


def _wait_until_open(child: subprocesses.Child, port: int) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and child.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(POLL_S)
        else:
            return
    raise PeerSkipped("it did not start")
