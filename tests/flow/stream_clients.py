"""One streamed chat with each client, as its users write it: what it hears piece by piece, and how that ends."""

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
WORDS = "How do LLMs work?"
ASKED: Any = {"model": MODEL, "messages": [{"role": "user", "content": WORDS}]}
STREAMED: Any = {**ASKED, "stream": True, "stream_options": {"include_usage": True}}
PATIENCE_S = 20  # a client that has not ended by then hangs
NODE = Path(__file__).parent / "node"


@dataclass
class Seen:
    """What a client saw. `usage` is of the prompt, of the completion and of both; `error` is its name, its status where
    it has one, and its words. Each piece of text is `heard`."""

    text: str = ""
    finish: str | None = None
    usage: tuple[int, ...] | None = None
    error: tuple[str, int | None, str] | None = None
    heard: Callable[[str], object] = field(default=lambda _: None, repr=False)

    def piece(self, text: str | None) -> None:
        if text:
            self.text += text
            self.heard(text)

    def chunk(self, told: Any) -> None:
        """One of OpenAI's SDK."""
        for choice in told.choices:
            self.piece(choice.delta.content)
            self.finish = choice.finish_reason or self.finish
        if told.usage:
            self.usage = (told.usage.prompt_tokens, told.usage.completion_tokens, told.usage.total_tokens)

    def failed(self, error: openai.APIError) -> None:
        self.error = (type(error).__name__, getattr(error, "status_code", None), str(error))


def settings(product: Product) -> Any:
    return {"base_url": f"{product.url}/v1", "api_key": product.key, "max_retries": 0, "timeout": PATIENCE_S}


def openai_sync(product: Product, seen: Seen) -> None:
    with openai.OpenAI(**settings(product)) as sdk:
        try:
            for chunk in sdk.chat.completions.create(**STREAMED):
                seen.chunk(chunk)
        except openai.APIError as error:
            seen.failed(error)


def openai_async(product: Product, seen: Seen) -> None:
    async def read() -> None:
        async with openai.AsyncOpenAI(**settings(product)) as sdk:
            try:
                async for chunk in await sdk.chat.completions.create(**STREAMED):
                    seen.chunk(chunk)
            except openai.APIError as error:
                seen.failed(error)

    asyncio.run(read())


def langchain(product: Product, seen: Seen) -> None:
    try:
        for chunk in ChatOpenAI(model=MODEL, stream_usage=True, **settings(product)).stream(WORDS):
            seen.piece(str(chunk.content))
            seen.finish = chunk.response_metadata.get("finish_reason") or seen.finish
            if used := chunk.usage_metadata:
                seen.usage = (used["input_tokens"], used["output_tokens"], used["total_tokens"])
    except openai.APIError as error:
        seen.failed(error)


def httpx_on_api(product: Product, seen: Seen) -> None:
    """No SDK, at the path of AI Server's own clients."""
    with product.http.stream("POST", "/api/OpenAiChatCompletion", json=STREAMED, timeout=PATIENCE_S) as answer:
        read_events(answer.iter_lines(), seen)
        if seen.error:
            seen.error = (seen.error[0], answer.status_code, seen.error[2])


def curl(product: Product, seen: Seen) -> None:
    with running(curl_command(product), encoding="utf-8") as child:
        read_events(child.stdout or (), seen)
    assert child.returncode == 0


def curl_command(product: Product) -> list[str]:
    sent = ("-H", f"authorization: Bearer {product.key}", "-d", json.dumps(STREAMED))
    address = f"{product.url}/v1/chat/completions"
    return ["curl", "-sS", "-N", "--noproxy", "*", "--max-time", str(PATIENCE_S), *sent, address]


def read_events(lines: Iterable[str], seen: Seen) -> None:
    """What the `data` lines of a stream say, or an answer that is an error and no stream."""
    for line in lines:
        told = json.loads(line.removeprefix("data: ")) if line.startswith(('data: {"', '{"')) else {}
        if error := told.get("error"):
            seen.error = ("event" if line.startswith("data") else "body", None, error["message"])
        for choice in told.get("choices", ()):
            seen.piece(choice["delta"].get("content"))
            seen.finish = choice["finish_reason"] or seen.finish
        if used := told.get("usage"):
            seen.usage = (used["prompt_tokens"], used["completion_tokens"], used["total_tokens"])


@contextmanager
def running(command: list[str], **how: Any) -> Generator[subprocess.Popen[Any]]:
    """A client's process, killed where it takes too long."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, **how) as child, impatient(child):
        yield child


@contextmanager
def impatient(child: subprocess.Popen[Any]) -> Generator[None]:
    timer = threading.Timer(2 * PATIENCE_S, child.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Npm:
    """A client of node/streams.mjs. Its process serves all its chats, until it is closed."""

    def __init__(self, name: str) -> None:
        self.__name__ = f"npm_{name}"
        self._name = name
        self._child: subprocess.Popen[str] | None = None

    def __call__(self, product: Product, seen: Seen) -> None:
        if self._child is None or self._child.poll() is not None:
            self.close()
            command = ["node", "streams.mjs", product.url, product.key]
            piped: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
            self._child = subprocess.Popen(command, cwd=NODE, **piped)
        child = self._child
        assert child.stdin
        assert child.stdout
        with impatient(child):
            child.stdin.write(f"{self._name}\n")
            child.stdin.flush()
            while "piece" in (told := json.loads(child.stdout.readline())):
                seen.piece(told["piece"])
        seen.finish = told["finish"]
        seen.usage, seen.error = (tuple(told[name]) if told[name] else None for name in ("usage", "error"))

    def close(self) -> None:
        if self._child:
            with self._child, impatient(self._child):
                self._child.communicate()
            self._child = None


CLIENTS = (openai_sync, openai_async, langchain, httpx_on_api, curl, Npm("openai"), Npm("vercel"))


def lack(client: Callable[..., None]) -> str | None:
    """What it needs that is not here."""
    if client is curl and shutil.which("curl") is None:
        return "curl is not installed"
    if isinstance(client, Npm) and not (shutil.which("node") and (NODE / "node_modules" / "ai").is_dir()):
        return "the npm clients need Node 18 or newer; `make test` installs them where it finds one"
    return None
