"""One streamed chat with each client, as its users write it: the text chunks it receives, and its result."""

import asyncio
import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
from langchain_openai import ChatOpenAI

from tests.flow.conftest import Product

MODEL = "llama3:8b"
PROMPT = "How do LLMs work?"
REQUEST: Any = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}]}
STREAM_REQUEST: Any = {**REQUEST, "stream": True, "stream_options": {"include_usage": True}}
CLIENT_TIMEOUT_S = 20  # a client that runs longer hangs
NODE = Path(__file__).parent / "node"


@dataclass
class StreamResult:
    """What a client received. `usage` is prompt, completion and total tokens; `error` is its name, its status if it has
    one, and its message. `on_text` is called with each chunk of text."""

    text: str = ""
    finish: str | None = None
    usage: tuple[int, ...] | None = None
    error: tuple[str, int | None, str] | None = None
    on_text: Callable[[str], object] = field(default=lambda _: None, repr=False)

    def add_text(self, text: str | None) -> None:
        if text:
            self.text += text
            self.on_text(text)

    def add_chunk(self, chunk: Any) -> None:
        """Add a chunk of the OpenAI SDK."""
        for choice in chunk.choices:
            self.add_text(choice.delta.content)
            self.finish = choice.finish_reason or self.finish
        if chunk.usage:
            self.usage = (chunk.usage.prompt_tokens, chunk.usage.completion_tokens, chunk.usage.total_tokens)

    def set_error(self, error: openai.APIError) -> None:
        self.error = (type(error).__name__, getattr(error, "status_code", None), str(error))


def settings(product: Product) -> Any:
    return {"base_url": f"{product.url}/v1", "api_key": product.key, "max_retries": 0, "timeout": CLIENT_TIMEOUT_S}


def openai_sync(product: Product, result: StreamResult) -> None:
    with openai.OpenAI(**settings(product)) as sdk:
        try:
            for chunk in sdk.chat.completions.create(**STREAM_REQUEST):
                result.add_chunk(chunk)
        except openai.APIError as error:
            result.set_error(error)


def openai_async(product: Product, result: StreamResult) -> None:
    async def read() -> None:
        async with openai.AsyncOpenAI(**settings(product)) as sdk:
            try:
                async for chunk in await sdk.chat.completions.create(**STREAM_REQUEST):
                    result.add_chunk(chunk)
            except openai.APIError as error:
                result.set_error(error)

    asyncio.run(read())


def langchain(product: Product, result: StreamResult) -> None:
    try:
        for chunk in ChatOpenAI(model=MODEL, stream_usage=True, **settings(product)).stream(PROMPT):
            result.add_text(str(chunk.content))
            result.finish = chunk.response_metadata.get("finish_reason") or result.finish
            if usage := chunk.usage_metadata:
                result.usage = (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"])
    except openai.APIError as error:
        result.set_error(error)


def httpx_on_api(product: Product, result: StreamResult) -> None:
    """Without an SDK, at the path of AI Server's clients."""
    with product.http.stream(
        "POST", "/api/OpenAiChatCompletion", json=STREAM_REQUEST, timeout=CLIENT_TIMEOUT_S
    ) as response:
        read_events(response.iter_lines(), result)
        if result.error:
            result.error = (result.error[0], response.status_code, result.error[2])


def curl(product: Product, result: StreamResult) -> None:
    with running(curl_command(product), encoding="utf-8") as child:
        read_events(child.stdout or (), result)
    assert child.returncode == 0


def curl_command(product: Product) -> list[str]:
    request_options = ("-H", f"authorization: Bearer {product.key}", "-d", json.dumps(STREAM_REQUEST))
    url = f"{product.url}/v1/chat/completions"
    return ["curl", "-sS", "-N", "--noproxy", "*", "--max-time", str(CLIENT_TIMEOUT_S), *request_options, url]


def read_events(lines: Iterable[str], result: StreamResult) -> None:
    """Read the `data` lines of a stream, or an error response without a stream."""
    for line in lines:
        event = json.loads(line.removeprefix("data: ")) if line.startswith(('data: {"', '{"')) else {}
        if error := event.get("error"):
            result.error = ("event" if line.startswith("data") else "body", None, error["message"])
        for choice in event.get("choices", ()):
            result.add_text(choice["delta"].get("content"))
            result.finish = choice["finish_reason"] or result.finish
        if usage := event.get("usage"):
            result.usage = (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"])


@contextmanager
def running(command: list[str], **options: Any) -> Generator[subprocess.Popen[Any]]:
    """Run a client's process; kill it after a timeout."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, **options) as child, kill_after_timeout(child):
        yield child


@contextmanager
def kill_after_timeout(child: subprocess.Popen[Any]) -> Generator[None]:
    timer = threading.Timer(2 * CLIENT_TIMEOUT_S, child.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Npm:
    """A client of node/streams.mjs. One process serves all its chats until `close`."""

    def __init__(self, name: str) -> None:
        self.__name__ = f"npm_{name}"
        self._name = name
        self._child: subprocess.Popen[str] | None = None

    def __call__(self, product: Product, result: StreamResult) -> None:
        if self._child is None or self._child.poll() is not None:
            self.close()
            command = ["node", "streams.mjs", product.url, product.key]
            pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
            self._child = subprocess.Popen(command, cwd=NODE, **pipes)
        child = self._child
        assert child.stdin
        assert child.stdout
        with kill_after_timeout(child):
            child.stdin.write(f"{self._name}\n")
            child.stdin.flush()
            while "piece" in (message := json.loads(child.stdout.readline())):
                result.add_text(message["piece"])
        result.finish = message["finish"]
        result.usage, result.error = (tuple(message[name]) if message[name] else None for name in ("usage", "error"))

    def close(self) -> None:
        if self._child:
            with self._child, kill_after_timeout(self._child):
                self._child.communicate()
            self._child = None


CLIENTS = (openai_sync, openai_async, langchain, httpx_on_api, curl, Npm("openai"), Npm("vercel"))


def missing_requirement(client: Callable[..., None]) -> str | None:
    """Return why this client cannot run here, or None."""
    if client is curl and shutil.which("curl") is None:
        return "curl is not installed"
    if isinstance(client, Npm) and not (shutil.which("node") and (NODE / "node_modules" / "ai").is_dir()):
        return "the npm clients need Node 18 or newer; `make test` installs them where it finds one"
    return None
