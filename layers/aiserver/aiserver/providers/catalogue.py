"""The services and servers that are known, as data: one more that speaks OpenAI's protocol is one row.

A providers.yaml names a row by `preset`; what the row says stands where the file says nothing.
docs/providers.md shows the rows. A fact that cannot be linked to its source does not belong here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

Operation = Literal["chat.completions", "embeddings", "responses"]
QueueName = Literal["hosted", "gpu"]
ProviderType = Literal["openai", "anthropic", "google", "bedrock"]

CHAT: tuple[Operation, ...] = ("chat.completions",)
CHAT_AND_EMBEDDINGS: tuple[Operation, ...] = ("chat.completions", "embeddings")
CHAT_AND_RESPONSES: tuple[Operation, ...] = ("chat.completions", "responses")
ALL_OPERATIONS: tuple[Operation, ...] = ("chat.completions", "embeddings", "responses")


@dataclass(frozen=True)
class Quirk:
    """Where it differs from OpenAI, in words, and where that is written."""

    text: str
    source: str


@dataclass(frozen=True)
class CredentialError:
    """An answer that means our own key, though its status blames the request: this status, a message that starts so.

    It must be the start: an error may quote the request further on, and no caller may pass as our key's trouble.
    """

    status: int
    message_prefix: str
    source: str


@dataclass(frozen=True)
class Preset:
    """One row. A `{part}` of `base_url` is the operator's own, who then has to write the whole `base_url`.

    `type` is the protocol it speaks. `auth_header` carries the key: as `Bearer …` if it is `authorization`, bare in
    any other.
    `lists_models` is whether `GET {base_url}/models` tells, for free, what may be asked for; `id_prefix` is what its
    ids carry besides. `stream_usage` is where it is written that it takes `stream_options.include_usage`; empty where
    nobody says so, or where that would bring nothing: then a stream is not asked for its usage.
    `other_ends` are how a `base_url` ends that is meant for another protocol than this.
    """

    title: str
    base_url: str
    source: str
    type: ProviderType = "openai"
    queue: QueueName = "hosted"
    auth_header: str = "authorization"
    operations: tuple[Operation, ...] = CHAT_AND_EMBEDDINGS
    lists_models: bool = True
    id_prefix: str = ""
    stream_usage: str = ""
    credential_errors: tuple[CredentialError, ...] = ()
    quirks: tuple[Quirk, ...] = ()
    rejected_url_suffixes: tuple[str, ...] = ()

    @property
    def defaults(self) -> dict[str, Any]:
        """What a provider of this row has where its operator says nothing else."""
        told = {"type": self.type, "queue": self.queue}
        told |= {"auth_header": self.auth_header, "operations": self.operations}
        return told if "{" in self.base_url else {"base_url": self.base_url, **told}


# A server that no row knows; nothing is presumed of it but the protocol.
GENERIC = Preset("any other server", "{base_url}", "https://platform.openai.com/docs/api-reference")

HOSTED = {
    "openai": Preset(
        "OpenAI",
        "https://api.openai.com/v1",
        "https://platform.openai.com/docs/api-reference",
        operations=ALL_OPERATIONS,
        stream_usage="https://github.com/openai/openai-python/blob/main/src/openai/types/chat/chat_completion_stream_options_param.py",
    ),
    "azure": Preset(
        "Azure OpenAI (v1)",
        "https://{resource}.openai.azure.com/openai/v1",
        "https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle",
        auth_header="api-key",
        operations=ALL_OPERATIONS,
        lists_models=False,
        quirks=(
            Quirk(
                "A model's name is that of its deployment.",
                "https://learn.microsoft.com/azure/ai-services/openai/how-to/switching-endpoints",
            ),
            Quirk(
                "With a key it lists all models that the resource could have, not what is deployed.",
                "https://learn.microsoft.com/rest/api/azureopenai/models/list",
            ),
            Quirk(
                "Mistral's models there refuse `stream_options.include_usage` (422), so none is asked for it.",
                "https://github.com/BerriAI/litellm/issues/11696",
            ),
        ),
    ),
    "bedrock": Preset(
        "Amazon Bedrock (bedrock-runtime)",
        "https://bedrock-runtime.{region}.amazonaws.com/openai/v1",
        "https://docs.aws.amazon.com/bedrock/latest/userguide/inference-responses-api.html",
        operations=CHAT_AND_RESPONSES,
        lists_models=False,
        quirks=(
            Quirk(
                "Its models are listed by AWS's own API only.",
                "https://docs.aws.amazon.com/bedrock/latest/userguide/models-get-info.md",
            ),
        ),
    ),
    "bedrock-mantle": Preset(
        "Amazon Bedrock (bedrock-mantle)",
        "https://bedrock-mantle.{region}.api.aws/v1",
        "https://docs.aws.amazon.com/bedrock/latest/userguide/models-get-info.md",
        operations=CHAT_AND_RESPONSES,
        stream_usage="https://github.com/maximhq/bifrost/issues/7065",
        quirks=(
            Quirk(
                "Some models are served below `/openai/v1` instead, and refused on this route.",
                "https://docs.aws.amazon.com/bedrock/latest/userguide/inference-responses-api.html",
            ),
        ),
    ),
    "deepseek": Preset(
        "DeepSeek",
        "https://api.deepseek.com",
        "https://api-docs.deepseek.com/",
        operations=CHAT,
        stream_usage="https://api-docs.deepseek.com/api/create-chat-completion",
        quirks=(
            Quirk(
                "Sends empty lines while a request waits, and hangs up when it has not begun after 10 minutes.",
                "https://api-docs.deepseek.com/quick_start/rate_limit",
            ),
            Quirk(
                "A stream's usage comes with the last piece of the answer, not after it.",
                "https://api-docs.deepseek.com/api/create-chat-completion",
            ),
        ),
    ),
    "fireworks": Preset(
        "Fireworks AI",
        "https://api.fireworks.ai/inference/v1",
        "https://docs.fireworks.ai/tools-sdks/openai-compatibility",
        operations=ALL_OPERATIONS,
        quirks=(
            Quirk(
                "A stream tells its usage in the last chunk, unasked.",
                "https://docs.fireworks.ai/tools-sdks/openai-compatibility",
            ),
            Quirk(
                "`max_tokens` beyond the context is lowered, not refused.",
                "https://docs.fireworks.ai/tools-sdks/openai-compatibility",
            ),
        ),
    ),
    "gemini": Preset(
        "Gemini, by its OpenAI-compatible endpoint",
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "https://ai.google.dev/gemini-api/docs/openai",
        id_prefix="models/",
        credential_errors=(
            CredentialError(400, "API key not valid", "https://github.com/cequence-io/openai-scala-client/issues/109"),
            CredentialError(
                400, "User location is not supported", "https://github.com/FoundationAgents/OpenManus/issues/803"
            ),
        ),
        quirks=(
            Quirk(
                "An error is an array of one object, and a member that it does not know is one (400).",
                "https://github.com/SuzumiyaAkizuki/ComfyUI-NewBie-LLM-Formatter/issues/3",
            ),
            Quirk(
                "Lists ids with `models/` before them, and refuses those in requests.",
                "https://github.com/OpenCoworkAI/open-codesign/pull/186",
            ),
            Quirk(
                "A key that is not valid, or a region that is not served, is a 400.",
                "https://github.com/FoundationAgents/OpenManus/issues/803",
            ),
            Quirk(
                "A stream tells its usage in the last chunk, unasked.",
                "https://discuss.ai.google.dev/t/gemini-openai-compatibility-does-it-support-the-stream-options-parameter/92785",
            ),
        ),
    ),
    "groq": Preset(
        "Groq",
        "https://api.groq.com/openai/v1",
        "https://console.groq.com/docs/openai",
        operations=CHAT_AND_RESPONSES,
        stream_usage="https://github.com/withceleste/celeste-python/pull/351",
        quirks=(
            Quirk(
                "Refuses `logprobs`, `logit_bias`, `top_logprobs`, `messages[].name` and an `n` over 1 (400).",
                "https://console.groq.com/docs/openai",
            ),
        ),
    ),
    "mistral": Preset(
        "Mistral",
        "https://api.mistral.ai/v1",
        "https://github.com/mistralai/platform-docs-public/blob/main/openapi.yaml",
        quirks=(
            Quirk(
                "Refuses members it does not know (422), among them `max_completion_tokens`; the error has no `error`.",
                "https://github.com/editor-code-assistant/eca/issues/231",
            ),
            Quirk(
                "Refuses `stream_options.include_usage` (422), and tells a stream's usage unasked.",
                "https://github.com/dnakov/anon-kode/issues/53",
            ),
        ),
    ),
    "openrouter": Preset(
        "OpenRouter",
        "https://openrouter.ai/api/v1",
        "https://openrouter.ai/docs/api/reference/errors-and-debugging",
        operations=ALL_OPERATIONS,
        quirks=(
            Quirk(
                "Answers 200 with an `error` where the model fails while it writes.",
                "https://openrouter.ai/docs/api/reference/errors-and-debugging",
            ),
            Quirk(
                "A 403 may also mean that moderation flagged the prompt; here it counts as the gateway's key.",
                "https://openrouter.ai/docs/api/reference/errors-and-debugging",
            ),
            Quirk(
                "Lists models that write text only, so none for embeddings.",
                "https://openrouter.ai/docs/models",
            ),
            Quirk(
                "A stream tells its usage in the last message, asked or not.",
                "https://openrouter.ai/docs/use-cases/usage-accounting",
            ),
        ),
    ),
    "together": Preset(
        "Together AI",
        "https://api.together.ai/v1",
        "https://docs.together.ai/docs/inference/openai-compatibility",
        stream_usage="https://github.com/vercel/ai/pull/17986",
        quirks=(Quirk("Lists its models as a bare array.", "https://docs.together.ai/reference/models"),),
    ),
    "xai": Preset(
        "xAI",
        "https://api.x.ai/v1",
        "https://docs.x.ai/developers/model-capabilities/text/comparison.md",
        operations=CHAT_AND_RESPONSES,
        stream_usage="https://github.com/tensorzero/tensorzero/pull/1761",
        credential_errors=(
            CredentialError(400, "Incorrect API key provided", "https://github.com/continuedev/continue/issues/10778"),
        ),
        quirks=(
            Quirk("A key that is not valid is a 400.", "https://docs.x.ai/developers/debugging"),
            Quirk(
                "An error is a string, with `code` beside it.",
                "https://github.com/nocmt/LLMSearchPlus/issues/2",
            ),
        ),
    ),
}

NATIVE = {
    "anthropic": Preset(
        "Anthropic",
        "https://api.anthropic.com",
        "https://platform.claude.com/docs/en/api/messages",
        type="anthropic",
        rejected_url_suffixes=("/v1", "/v1/messages"),
        auth_header="x-api-key",
        operations=CHAT,
        credential_errors=(
            CredentialError(
                400, "Your credit balance is too low", "https://github.com/anthropics/claude-code/issues/5300"
            ),
            CredentialError(
                400, "You have reached your specified", "https://github.com/anthropics/claude-code/issues/38035"
            ),
        ),
        quirks=(
            Quirk(
                "Servers that speak its protocol are reached by a `base_url` as its SDK takes it, without `/v1`.",
                "https://platform.claude.com/docs/en/api/messages",
            ),
        ),
    ),
    "google": Preset(
        "Gemini, by its own API",
        "https://generativelanguage.googleapis.com/v1beta",
        "https://ai.google.dev/api/generate-content",
        type="google",
        rejected_url_suffixes=("/openai",),
        auth_header="x-goog-api-key",
        operations=CHAT,
        credential_errors=(
            CredentialError(400, "API key not valid", "https://github.com/cequence-io/openai-scala-client/issues/109"),
            CredentialError(400, "API Key not found", "https://github.com/google-gemini/gemini-cli/issues/25198"),
            CredentialError(400, "API key expired", "https://github.com/continuedev/continue/issues/9655"),
            CredentialError(
                400, "User location is not supported", "https://github.com/FoundationAgents/OpenManus/issues/803"
            ),
        ),
        quirks=(
            Quirk(
                "A key that is not valid, or a region that is not served, is a 400.",
                "https://github.com/FoundationAgents/OpenManus/issues/803",
            ),
            Quirk(
                "Fetches images and files by their https URLs itself; which media type one has, its ending tells.",
                "https://blog.google/innovation-and-ai/technology/developers-tools/gemini-api-new-file-limits",
            ),
        ),
    ),
    "bedrock-converse": Preset(
        "Amazon Bedrock (Converse)",
        "https://bedrock-runtime.{region}.amazonaws.com",
        "https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference.html",
        type="bedrock",
        rejected_url_suffixes=("/v1", "/openai"),
        operations=CHAT,
        lists_models=False,
        credential_errors=(
            CredentialError(
                404,
                "Model use case details have not been submitted for this account",
                "https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html",
            ),
        ),
        quirks=(
            Quirk(
                "With a key, a Bedrock API key, it is asked by that; without one by the role of the function.",
                "https://docs.aws.amazon.com/bedrock/latest/userguide/api-keys.html",
            ),
            Quirk(
                "Its models are listed by AWS's own API only.",
                "https://docs.aws.amazon.com/bedrock/latest/userguide/models-get-info.md",
            ),
        ),
    ),
}
# What a provider has that says its type and no preset.
BY_TYPE: Mapping[str, Preset] = MappingProxyType({row.type: row for row in NATIVE.values()})

SELF_HOSTED = {
    "vllm": Preset(
        "vLLM",
        "http://{host}:8000/v1",
        "https://docs.vllm.ai/en/v0.32.0/serving/online_serving/",
        queue="gpu",
        operations=ALL_OPERATIONS,
        stream_usage="https://github.com/vllm-project/vllm/blob/main/vllm/entrypoints/openai/engine/protocol.py",
    ),
    "llama-cpp": Preset(
        "llama.cpp",
        "http://{host}:{port}/v1",
        "https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
        queue="gpu",
        operations=CHAT_AND_RESPONSES,
        stream_usage="https://github.com/ggml-org/llama.cpp/pull/16052",
        quirks=(
            Quirk(
                "Answers 501 to embeddings unless it was started with `--embeddings`, for a model of embeddings.",
                "https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
            ),
            Quirk(
                "Answers 503 `Loading model` until the model is loaded.",
                "https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
            ),
            Quirk(
                "A model's id is the path of its file, unless `--alias` gives it a name.",
                "https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
            ),
        ),
    ),
    "ollama": Preset(
        "Ollama, by its `/v1`",
        "http://{host}:11434/v1",
        "https://github.com/ollama/ollama/blob/main/docs/api/openai-compatibility.mdx",
        queue="gpu",
        operations=ALL_OPERATIONS,
        stream_usage="https://github.com/ollama/ollama/blob/main/docs/api/openai-compatibility.mdx",
        quirks=(
            Quirk(
                "Loads a model at its first request, and again after 5 minutes of rest.",
                "https://github.com/ollama/ollama/blob/main/docs/faq.mdx",
            ),
            Quirk(
                "Ignores the key.",
                "https://github.com/ollama/ollama/blob/main/docs/api/openai-compatibility.mdx",
            ),
        ),
    ),
    "tgi": Preset(
        "Text Generation Inference",
        "http://{host}:{port}/v1",
        "https://github.com/huggingface/text-generation-inference/blob/main/docs/source/messages_api.md",
        queue="gpu",
        operations=CHAT,
        stream_usage="https://github.com/huggingface/text-generation-inference/blob/main/docs/openapi.json",
        quirks=(
            Quirk(
                "An error is a string, with `error_type` beside it; a full queue is a 429.",
                "https://github.com/huggingface/text-generation-inference/blob/main/docs/openapi.json",
            ),
            Quirk(
                "A generation that fails is a 424, which is relayed like any other 4xx: no other provider is asked.",
                "https://github.com/huggingface/text-generation-inference/blob/main/docs/openapi.json",
            ),
        ),
    ),
    "sglang": Preset(
        "SGLang",
        "http://{host}:30000/v1",
        "https://docs.sglang.io/docs/basic_usage/send_request",
        queue="gpu",
        operations=ALL_OPERATIONS,
        stream_usage="https://github.com/sgl-project/sglang/blob/main/python/sglang/srt/entrypoints/openai/protocol.py",
        quirks=(
            Quirk(
                "Lists one model: what `--served-model-name` says.",
                "https://github.com/sgl-project/sglang/blob/main/python/sglang/srt/entrypoints/http_server.py",
            ),
        ),
    ),
    "lm-studio": Preset(
        "LM Studio",
        "http://{host}:1234/v1",
        "https://lmstudio.ai/docs/api/openai-api",
        queue="gpu",
        operations=ALL_OPERATIONS,
        stream_usage="https://lmstudio.ai/docs/app/api-changelog",
        quirks=(
            Quirk(
                "Loads a model at its first request, and then lists all that are downloaded.",
                "https://www.lmstudio.ai/docs/app/api/headless",
            ),
            Quirk("Drops a model after an hour of rest.", "https://lmstudio.ai/docs/api/ttl-and-auto-evict"),
        ),
    ),
}

CATALOGUE: Mapping[str, Preset] = MappingProxyType(HOSTED | NATIVE | SELF_HOSTED)
