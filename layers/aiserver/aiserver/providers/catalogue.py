"""The services and servers that speak OpenAI's protocol, as data: one more is one row.

A providers.yaml names a row by `preset`; what the row says stands where the file says nothing.
docs/providers.md shows the rows. A fact that cannot be linked to its source does not belong here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

Operation = Literal["chat.completions", "embeddings", "responses"]
Queue = Literal["hosted", "gpu"]

CHAT_AND_EMBEDDINGS: tuple[Operation, ...] = ("chat.completions", "embeddings")
ALL_OPERATIONS: tuple[Operation, ...] = ("chat.completions", "embeddings", "responses")


@dataclass(frozen=True)
class Quirk:
    """Where it differs from OpenAI, in words, and where that is written."""

    words: str
    source: str


@dataclass(frozen=True)
class Refusal:
    """An answer that means our own key, though its status blames the request: this status, these words in its body."""

    status: int
    words: str
    source: str


@dataclass(frozen=True)
class Preset:
    """One row. A `{part}` of `base_url` is the operator's own, who then has to write the whole `base_url`.

    `auth_header` carries the key: as `Bearer …` if it is `authorization`, bare in any other.
    `lists_models` is whether `GET {base_url}/models` answers, for free; `id_prefix` is what its ids carry besides.
    `stream_usage` is whether `stream_options.include_usage` may be sent to it.
    """

    title: str
    base_url: str
    source: str
    queue: Queue = "hosted"
    auth_header: str = "authorization"
    operations: tuple[Operation, ...] = CHAT_AND_EMBEDDINGS
    lists_models: bool = True
    id_prefix: str = ""
    stream_usage: bool = True
    refusals: tuple[Refusal, ...] = ()
    quirks: tuple[Quirk, ...] = ()

    @property
    def defaults(self) -> dict[str, Any]:
        """What a provider of this row has where its operator says nothing else."""
        told = {"queue": self.queue, "auth_header": self.auth_header, "operations": self.operations}
        return told if "{" in self.base_url else {"base_url": self.base_url, **told}


# A server that no row knows; nothing is presumed of it but the protocol.
UNKNOWN = Preset("any other server", "{base_url}", "https://platform.openai.com/docs/api-reference", stream_usage=False)

CATALOGUE: Mapping[str, Preset] = MappingProxyType(
    {
        "openai": Preset(
            "OpenAI",
            "https://api.openai.com/v1",
            "https://platform.openai.com/docs/api-reference",
            operations=ALL_OPERATIONS,
        ),
        "vllm": Preset(
            "vLLM",
            "http://{host}:8000/v1",
            "https://docs.vllm.ai/en/latest/serving/openai_compatible_server/",
            queue="gpu",
            operations=ALL_OPERATIONS,
        ),
    }
)
