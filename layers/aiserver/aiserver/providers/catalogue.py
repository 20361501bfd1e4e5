"""The catalogue of known services and servers, as data: a new OpenAI-compatible one needs one preset.

A provider in providers.yaml names a preset by `preset`; its values are the defaults.
docs/providers.md lists the presets. Every fact needs a link to its source.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from aiserver.operations import CHAT, EMBEDDINGS, RESPONSES

QueueName = Literal["hosted", "gpu"]
ProviderType = Literal["openai", "anthropic", "google", "bedrock"]

CHAT_ONLY = (CHAT.name,)
CHAT_AND_EMBEDDINGS = (CHAT.name, EMBEDDINGS.name)
CHAT_AND_RESPONSES = (CHAT.name, RESPONSES.name)
ALL_OPERATIONS = (CHAT.name, EMBEDDINGS.name, RESPONSES.name)


@dataclass(frozen=True)
class Quirk:
    """A difference from OpenAI's behaviour, and the URL of its source."""

    text: str
    source: str


@dataclass(frozen=True)
class CredentialError:
    """A response that means the gateway's key, although its status means the request: a status and a message prefix.

    It must be a prefix: an error may quote the request later on, and no caller may fake an error of the key.
    """

    status: int
    message_prefix: str
    source: str


@dataclass(frozen=True)
class Preset:
    """The defaults of a provider. If `base_url` contains a `{placeholder}`, the operator must set `base_url`.

    `type` is its protocol. `auth_header` contains the key: as `Bearer …` in `authorization`, bare in any other header.
    `lists_models`: whether `GET {base_url}/models` lists the usable models at no cost; `id_prefix` is removed from
    their ids. `stream_usage` is the source that documents `stream_options.include_usage`. It is empty where that is
    undocumented or has no effect: then no usage is requested for streams.
    `rejected_url_suffixes` are the ends of a `base_url` for another protocol.
    """

    title: str
    base_url: str
    source: str
    type: ProviderType = "openai"
    queue: QueueName = "hosted"
    auth_header: str = "authorization"
    operations: tuple[str, ...] = CHAT_AND_EMBEDDINGS
    lists_models: bool = True
    id_prefix: str = ""
    stream_usage: str = ""
    credential_errors: tuple[CredentialError, ...] = ()
    quirks: tuple[Quirk, ...] = ()
    rejected_url_suffixes: tuple[str, ...] = ()

    @property
    def defaults(self) -> dict[str, Any]:
        """The default fields of a provider with this preset."""
        defaults = {"type": self.type, "queue": self.queue}
        defaults |= {"auth_header": self.auth_header, "operations": self.operations}
        return defaults if "{" in self.base_url else {"base_url": self.base_url, **defaults}


# A server without a preset; only its protocol is known.
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
                "A model is addressed by the name of its deployment.",
                "https://learn.microsoft.com/azure/ai-services/openai/how-to/switching-endpoints",
            ),
            Quirk(
                "With an API key it lists all models available to the resource, not its deployments.",
                "https://learn.microsoft.com/rest/api/azureopenai/models/list",
            ),
            Quirk(
                "Mistral's models on Azure reject `stream_options.include_usage` (422): it is not sent for any model.",
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
                "Only AWS's own API lists its models.",
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
                "Some models are served under `/openai/v1` instead, and rejected on this route.",
                "https://docs.aws.amazon.com/bedrock/latest/userguide/inference-responses-api.html",
            ),
        ),
    ),
    "deepseek": Preset(
        "DeepSeek",
        "https://api.deepseek.com",
        "https://api-docs.deepseek.com/",
        operations=CHAT_ONLY,
        stream_usage="https://api-docs.deepseek.com/api/create-chat-completion",
        quirks=(
            Quirk(
                "Sends empty lines while a request waits; disconnects if inference has not started after 10 minutes.",
                "https://api-docs.deepseek.com/quick_start/rate_limit",
            ),
            Quirk(
                "A stream contains its usage in the last content chunk, not in a chunk of its own.",
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
                "A stream contains its usage in the last chunk, without being requested.",
                "https://docs.fireworks.ai/tools-sdks/openai-compatibility",
            ),
            Quirk(
                "`max_tokens` beyond the context length is lowered, not rejected.",
                "https://docs.fireworks.ai/tools-sdks/openai-compatibility",
            ),
        ),
    ),
    "gemini": Preset(
        "Gemini (OpenAI-compatible endpoint)",
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
                "An error is an array of one object. An unknown request member is an error (400).",
                "https://github.com/SuzumiyaAkizuki/ComfyUI-NewBie-LLM-Formatter/issues/3",
            ),
            Quirk(
                "Lists ids with the prefix `models/`, which it rejects in requests.",
                "https://github.com/OpenCoworkAI/open-codesign/pull/186",
            ),
            Quirk(
                "An invalid API key or an unsupported region is a 400.",
                "https://github.com/FoundationAgents/OpenManus/issues/803",
            ),
            Quirk(
                "A stream contains its usage in the last chunk, without being requested.",
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
                "Rejects `logprobs`, `logit_bias`, `top_logprobs`, `messages[].name` and an `n` over 1 (400).",
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
                "Rejects unknown members (422), including `max_completion_tokens`; the body has no `error` member.",
                "https://github.com/editor-code-assistant/eca/issues/231",
            ),
            Quirk(
                "Rejects `stream_options.include_usage` (422); a stream contains its usage without being requested.",
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
                "Returns status 200 with an `error` if the model fails during generation.",
                "https://openrouter.ai/docs/api/reference/errors-and-debugging",
            ),
            Quirk(
                "A 403 may also mean that moderation flagged the prompt; the gateway treats it as an API key error.",
                "https://openrouter.ai/docs/api/reference/errors-and-debugging",
            ),
            Quirk(
                "Lists only models with text output, so no embedding models.",
                "https://openrouter.ai/docs/models",
            ),
            Quirk(
                "A stream contains its usage in the last message, requested or not.",
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
            Quirk("An invalid API key is a 400.", "https://docs.x.ai/developers/debugging"),
            Quirk(
                "`error` is a string; `code` is a separate member.",
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
        operations=CHAT_ONLY,
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
                "For compatible servers, `base_url` is that of Anthropic's SDK, without `/v1`.",
                "https://platform.claude.com/docs/en/api/messages",
            ),
        ),
    ),
    "google": Preset(
        "Gemini (native API)",
        "https://generativelanguage.googleapis.com/v1beta",
        "https://ai.google.dev/api/generate-content",
        type="google",
        rejected_url_suffixes=("/openai",),
        auth_header="x-goog-api-key",
        operations=CHAT_ONLY,
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
                "An invalid API key or an unsupported region is a 400.",
                "https://github.com/FoundationAgents/OpenManus/issues/803",
            ),
            Quirk(
                "Fetches images and files from https URLs itself; the media type is derived from the file extension.",
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
        operations=CHAT_ONLY,
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
                "Requests use the Bedrock API key, if one is configured, else the IAM role of the function.",
                "https://docs.aws.amazon.com/bedrock/latest/userguide/api-keys.html",
            ),
            Quirk(
                "Only AWS's own API lists its models.",
                "https://docs.aws.amazon.com/bedrock/latest/userguide/models-get-info.md",
            ),
        ),
    ),
}
# The preset of a provider that has a type but no preset.
BY_TYPE: Mapping[str, Preset] = MappingProxyType({preset.type: preset for preset in NATIVE.values()})

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
                "Returns 501 for embeddings unless it was started with `--embeddings` and an embedding model.",
                "https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
            ),
            Quirk(
                "Returns 503 `Loading model` until the model is loaded.",
                "https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
            ),
            Quirk(
                "A model's id is the path of its file, unless `--alias` sets a name.",
                "https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
            ),
        ),
    ),
    "ollama": Preset(
        "Ollama (`/v1`)",
        "http://{host}:11434/v1",
        "https://github.com/ollama/ollama/blob/main/docs/api/openai-compatibility.mdx",
        queue="gpu",
        operations=ALL_OPERATIONS,
        stream_usage="https://github.com/ollama/ollama/blob/main/docs/api/openai-compatibility.mdx",
        quirks=(
            Quirk(
                "Loads a model at its first request, and unloads it after 5 minutes without requests.",
                "https://github.com/ollama/ollama/blob/main/docs/faq.mdx",
            ),
            Quirk(
                "Ignores the API key.",
                "https://github.com/ollama/ollama/blob/main/docs/api/openai-compatibility.mdx",
            ),
        ),
    ),
    "tgi": Preset(
        "Text Generation Inference",
        "http://{host}:{port}/v1",
        "https://github.com/huggingface/text-generation-inference/blob/main/docs/source/messages_api.md",
        queue="gpu",
        operations=CHAT_ONLY,
        stream_usage="https://github.com/huggingface/text-generation-inference/blob/main/docs/openapi.json",
        quirks=(
            Quirk(
                "`error` is a string; `error_type` is a separate member. A full queue is a 429.",
                "https://github.com/huggingface/text-generation-inference/blob/main/docs/openapi.json",
            ),
            Quirk(
                "A failed generation is a 424, which is relayed like any other 4xx, without failover.",
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
                "Lists one model: the value of `--served-model-name`.",
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
                "Loads a model at its first request, and then lists all downloaded models.",
                "https://www.lmstudio.ai/docs/app/api/headless",
            ),
            Quirk("Unloads a model after an hour without requests.", "https://lmstudio.ai/docs/api/ttl-and-auto-evict"),
        ),
    ),
}

CATALOGUE: Mapping[str, Preset] = MappingProxyType(HOSTED | NATIVE | SELF_HOSTED)
