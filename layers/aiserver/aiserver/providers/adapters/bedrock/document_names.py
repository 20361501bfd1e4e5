"""Document names, which Bedrock requires to be unique in a request: over all turns and tool results.

It ignores case. https://github.com/aws-samples/sample-strands-agent-with-agentcore/pull/290
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Raw

from aiserver.providers.adapters.bedrock.history import document_name

Block = Raw | dict[str, Any]
MAX_NAME = 200
_INVALID_NAME_CHARS = re.compile(r"[^a-zA-Z0-9\s()\[\]-]")


def document_name_for(filename: str, path: str) -> str:
    """A name of allowed characters; a document without a name is numbered by its position."""
    stem = filename.rpartition(".")[0] or filename
    name = " ".join(_INVALID_NAME_CHARS.sub("-", stem).split())[:MAX_NAME].strip()
    return name or "document " + "-".join(re.findall(r"\d+", path))


def make_names_unique(turns: Iterable[dict[str, Any]]) -> None:
    """Append a number to each name that another document of the request has.

    Blocks that the caller wrote in Bedrock's format keep their names.
    """
    blocks = [block for turn in turns for block in _blocks(turn["content"])]
    numbers = {name.casefold(): 1 for block in blocks if isinstance(block, Raw) and (name := document_name(block))}
    documents = [block["document"] for block in blocks if not isinstance(block, Raw) and "document" in block]
    for document in documents:
        document["name"] = _unique_name(document["name"], numbers)


def _blocks(content: list[Block]) -> Iterator[Block]:
    for block in content:
        yield block
        if not isinstance(block, Raw) and "toolResult" in block and not isinstance(block["toolResult"], Raw):
            yield from _blocks(block["toolResult"]["content"])


def _unique_name(base_name: str, numbers: dict[str, int]) -> str:
    name = base_name
    while name.casefold() in numbers:
        numbers[base_name.casefold()] += 1
        suffix = f" {numbers[base_name.casefold()]}"
        name = base_name[: MAX_NAME - len(suffix)].rstrip() + suffix
    numbers[name.casefold()] = 1
    return name
