"""The catalogue of known services and servers, as data: a new OpenAI-compatible one needs one preset.

A provider in providers.yaml names a preset by `preset`; its values are the defaults.
docs/providers.md lists the presets. Every fact needs a link to its source.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from aiserver.operations import (
    CHAT,
    EMBEDDINGS,
    IMAGE_EDITS,
    IMAGE_VARIATIONS,
    IMAGES,
    RESPONSES,
    SPEECH,
    TRANSCRIPTIONS,
    TRANSLATIONS,
)

QueueName = Literal["hosted", "gpu"]
ProviderType = Literal["openai", "anthropic", "google", "bedrock"]

CHAT_ONLY = (CHAT.name,)
CHAT_AND_EMBEDDINGS = (CHAT.name, EMBEDDINGS.name)
CHAT_AND_RESPONSES = (CHAT.name, RESPONSES.name)
TEXT_OPERATIONS = (CHAT.name, EMBEDDINGS.name, RESPONSES.name)
TRANSCRIPTIONS_ONLY = (TRANSCRIPTIONS.name,)
SPEECH_ONLY = (SPEECH.name,)
AUDIO_TO_TEXT = (TRANSCRIPTIONS.name, TRANSLATIONS.name)
AUDIO_OPERATIONS = (*AUDIO_TO_TEXT, SPEECH.name)
IMAGES_AND_EDITS = (IMAGES.name, IMAGE_EDITS.name)
IMAGE_OPERATIONS = (*IMAGES_AND_EDITS, IMAGE_VARIATIONS.name)

# Values of `response_format` of transcripts.
JSON_AND_TEXT = ("json", "text")
WITHOUT_SUBTITLES = ("json", "text", "verbose_json")
WITH_SUBTITLES = ("json", "text", "srt", "vtt", "verbose_json")


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
class TranscriptFormats:
    """The values of `response_format` of the transcripts and translations of models with a prefix, and the source.

    Only some of these models support the `optional` ones: a request for them is sent, but the gateway chooses none.
    """

    formats: tuple[str, ...]
    source: str
    model_prefix: str = ""
    optional: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageFacts:
    """How a provider's requests for images differ from OpenAI's, for models with a prefix, and the source.

    `size` names the members that have the size. `base64_format` is the value of `response_format` for base64; empty
    where the response always is base64, and `response_format` is rejected. `image_part` and `mask_part` are the names
    of files in a form; an empty `image_part` stands for `image` and `image[]`. `mask` are the pixels of a mask that are
    edited: "none" means that masks are ignored, "" that it is not known. `needs_mask`: edits without one fail.
    `optional` maps optional members of AI Server's requests (wire.aiserver_images.HINTS) to the provider's names; the
    others are not supported. Or they are a part of the prompt: the negative prompt after `negative_separator`, or all
    of them as JSON in an element `prompt_element`. `max_images` is the limit of `n`; 0 where it is not known.
    `accepts_json`: images to edit may also be URLs in a JSON body.
    """

    source: str
    model_prefix: str = ""
    size: Literal["size", "width, height", "aspect_ratio"] = "size"
    base64_format: str = "b64_json"
    image_part: str = ""
    mask_part: str = "mask"
    mask: Literal["", "transparent", "white", "none"] = ""
    needs_mask: bool = False
    optional: Mapping[str, str] = field(default_factory=dict[str, str])
    negative_separator: str = ""
    prompt_element: str = ""
    max_images: int = 0
    accepts_json: bool = True


@dataclass(frozen=True)
class Preset:
    """The defaults of a provider. If `base_url` contains a `{placeholder}`, the operator must set `base_url`.

    `type` is its protocol. `auth_header` contains the key: as `Bearer …` in `authorization`, bare in any other header.
    `lists_models`: whether `GET {base_url}/models` lists the usable models at no cost; `id_prefix` is removed from
    their ids. `stream_usage` is the source that documents `stream_options.include_usage`. It is empty where that is
    undocumented or has no effect: then no usage is requested for streams.
    `rejected_url_suffixes` are the ends of a `base_url` for another protocol. `paths` are the paths of operations that
    differ from OpenAI's. `transcript_formats` and `image_facts` with the longest matching prefix apply to a model.
    `audio_source` documents the audio operations, where `source` does not.
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
    paths: Mapping[str, str] = field(default_factory=dict[str, str])
    transcript_formats: tuple[TranscriptFormats, ...] = ()
    audio_source: str = ""
    image_facts: tuple[ImageFacts, ...] = ()

    def image_facts_of(self, model: str) -> ImageFacts:
        """What is known of a model's requests for images. For an unknown server, they are sent as they are."""
        matches = [row for row in self.image_facts if model.startswith(row.model_prefix)]
        return max(matches, key=lambda row: len(row.model_prefix), default=UNKNOWN_IMAGE_FACTS)

    def formats_of(self, model: str) -> tuple[str, ...]:
        """The values of `response_format` that a model's transcripts may have; empty where that is not known."""
        row = self._formats_row(model)
        return row.formats if row else ()

    def has_format(self, model: str, response_format: str) -> bool:
        """Whether a model's transcripts are known to support that `response_format`."""
        row = self._formats_row(model)
        return row is not None and response_format in row.formats and response_format not in row.optional

    def _formats_row(self, model: str) -> TranscriptFormats | None:
        matches = [row for row in self.transcript_formats if model.startswith(row.model_prefix)]
        return max(matches, key=lambda row: len(row.model_prefix), default=None)

    @property
    def defaults(self) -> dict[str, Any]:
        """The default fields of a provider with this preset."""
        defaults = {"type": self.type, "queue": self.queue}
        defaults |= {"auth_header": self.auth_header, "operations": self.operations}
        return defaults if "{" in self.base_url else {"base_url": self.base_url, **defaults}


# Of a server without a preset: every member is sent, and the server ignores or checks those that it does not know.
UNKNOWN_IMAGE_FACTS = ImageFacts("", optional={name: name for name in ("negative_prompt", "seed", "strength")})

# A server without a preset; only its protocol is known.
GENERIC = Preset("any other server", "{base_url}", "https://platform.openai.com/docs/api-reference")

# Sources of several facts.
_OPENAI_PARAMS = (
    "https://github.com/openai/openai-python/blob/main/src/openai/types/audio/transcription_create_params.py"
)
_VLLM_SERVING = "https://github.com/vllm-project/vllm/blob/c227b4d59dc853db235d6cb1f07266b9ac0d6575/vllm/entrypoints/speech_to_text/base/serving.py"
_SPEACHES_ROUTER = (
    "https://github.com/speaches-ai/speaches/blob/b28591ffa26f0bd93d03de73699563d2e20bbc78/src/speaches/routers/stt.py"
)
_SPEACHES_WHISPER = "https://github.com/speaches-ai/speaches/blob/0d7d56944e3a6f03849e076e73fb749e93e4a699/src/speaches/executors/whisper.py"
_KOKORO_ROUTER = "https://github.com/remsky/Kokoro-FastAPI/blob/032990dc6d31a676e2b5182c3225fe91b9fcbef7/api/src/routers/openai_compatible.py"
_WHISPER_SERVER = (
    "https://github.com/ggml-org/whisper.cpp/blob/0349811db1d76180cf5bacbbe59e028d7245c194/examples/server/server.cpp"
)
_LOCALAI_ROUTES = (
    "https://github.com/mudler/LocalAI/blob/0177e4988ca23e43ede8a440c844060d60620439/core/http/routes/openai.go"
)
_LOCALAI_TRANSCRIPT = "https://github.com/mudler/LocalAI/blob/master/core/http/endpoints/openai/transcription.go"

_OPENAI_IMAGES = "https://github.com/openai/openai-python/blob/01a7709e0dec385d3b4dbc1056f3787f30e2ccb1/src/openai/types/image_edit_params.py"
_OPENAI_SPECIFICATION = (
    "https://github.com/openai/openai-openapi/blob/00747d3cafaa21ca8b9b7a39a9a5e550c87fc9a0/openapi.json"
)
_AZURE_IMAGES = "https://github.com/MicrosoftDocs/azure-ai-docs/blob/10fd319b2aa5d580b5714f69788024d7c4dd13fa/articles/foundry/openai/how-to/dall-e.md"
_TOGETHER_IMAGES = "https://docs.together.ai/reference/post-images-generations.md"
_TOGETHER_OPTIONAL = {"negative_prompt": "negative_prompt", "seed": "seed"}
_DEEPINFRA_IMAGES = "https://github.com/vercel/ai/blob/00c930e2a808bf8f3557fc8948e785325d2fdb5d/packages/deepinfra/src/deepinfra-image-model.ts"
_LOCALAI_IMAGES = "https://github.com/mudler/LocalAI/blob/089efe05fdff90eb89940d4c0722dd2fdf026ba7/core/http/endpoints/openai/image.go"
_LOCALAI_INPAINTING = "https://github.com/mudler/LocalAI/blob/00a38d178939e6d97c55c9d4cd0463eeccc4c3d6/core/http/endpoints/openai/inpainting.go"
_SD_CPP_ROUTES = "https://github.com/leejet/stable-diffusion.cpp/blob/0137f168e6831365c3cbc536b8578e84355249a7/examples/server/routes_openai.cpp"
_VLLM_OMNI_EDITS = "https://docs.vllm.ai/projects/vllm-omni/en/latest/serving/image_edit_api/"
_VLLM_OMNI_IMAGES = "https://github.com/vllm-project/vllm-omni/blob/00a3619b9b6647378a285e9d135475e2fa085744/vllm_omni/entrypoints/openai/protocol/images.py"
_XAI_IMAGES = "https://docs.x.ai/developers/model-capabilities/images/generation"

OPENAI_IMAGES = ImageFacts(_OPENAI_IMAGES, base64_format="", mask="transparent", max_images=10)

FIREWORKS_AUDIO = Preset(
    "Fireworks AI (`whisper-v3`)",
    "https://audio-prod.api.fireworks.ai/v1",
    "https://docs.fireworks.ai/guides/querying-asr-models",
    operations=AUDIO_TO_TEXT,
    lists_models=False,
    audio_source="https://docs.fireworks.ai/api-reference/audio-translations",
    transcript_formats=(
        TranscriptFormats(WITH_SUBTITLES, "https://docs.fireworks.ai/api-reference/audio-transcriptions"),
    ),
    quirks=(
        Quirk(
            "Each audio model has a host of its own. No model list is documented for these hosts.",
            "https://docs.fireworks.ai/guides/querying-asr-models",
        ),
        Quirk(
            "Accepts files of up to 1 GB. `file` may also be a URL.",
            "https://docs.fireworks.ai/api-reference/audio-transcriptions",
        ),
        Quirk(
            "Several values of `timestamp_granularities` are one value: `word,segment`.",
            "https://docs.fireworks.ai/api-reference/audio-transcriptions",
        ),
    ),
)

HOSTED = {
    "openai": Preset(
        "OpenAI",
        "https://api.openai.com/v1",
        "https://platform.openai.com/docs/api-reference",
        operations=(*TEXT_OPERATIONS, *AUDIO_OPERATIONS, *IMAGES_AND_EDITS),
        image_facts=(OPENAI_IMAGES,),
        stream_usage="https://github.com/openai/openai-python/blob/main/src/openai/types/chat/chat_completion_stream_options_param.py",
        audio_source="https://github.com/openai/openai-python/tree/main/src/openai/types/audio",
        transcript_formats=(
            TranscriptFormats(WITH_SUBTITLES, "https://platform.openai.com/docs/guides/speech-to-text", "whisper-1"),
            TranscriptFormats(JSON_AND_TEXT, "https://github.com/openai/openai-dotnet/issues/401", "gpt-4o-transcribe"),
            TranscriptFormats(
                JSON_AND_TEXT, "https://github.com/openai/openai-dotnet/issues/401", "gpt-4o-mini-transcribe"
            ),
            TranscriptFormats((*JSON_AND_TEXT, "diarized_json"), _OPENAI_PARAMS, "gpt-4o-transcribe-diarize"),
        ),
        quirks=(
            Quirk(
                "The speech models `tts-1`, `tts-1-hd` and `gpt-4o-mini-tts` shut down on 2027-01-06.",
                "https://developers.openai.com/api/docs/deprecations",
            ),
            Quirk(
                "`whisper-1` and the `gpt-4o-transcribe` and `gpt-4o-mini-transcribe` models shut down on 2027-02-26.",
                "https://developers.openai.com/api/docs/deprecations",
            ),
            Quirk(
                "Translations shut down on 2027-02-26, too, without a replacement.",
                "https://www.developersdigest.tech/blog/whisper-1-gpt-4o-transcribe-deprecation",
            ),
            Quirk(
                "`whisper-1` accepts at most 25 MiB, and ignores `stream`.",
                "https://help.openai.com/en/articles/7031512-whisper-api-faq",
            ),
            Quirk(
                "The extension of the file name decides: `.opus` is rejected, the same file as `.ogg` is accepted.",
                "https://github.com/DevEmperor/DictateKeyboard/issues/322",
            ),
            Quirk(
                "`gpt-4o-transcribe-diarize` requires `chunking_strategy` for audio over 30 seconds.", _OPENAI_PARAMS
            ),
            Quirk(
                "Transcripts as text, SRT and VTT have the content type `text/plain`.",
                "https://github.com/openai/openai-openapi/issues/361",
            ),
            Quirk(
                "Image variations, and the models `dall-e-2` and `dall-e-3`, are retired (410).", _OPENAI_SPECIFICATION
            ),
            Quirk(
                "Images are always base64; `response_format` is rejected, and the gateway removes `b64_json`.",
                "https://github.com/vercel/ai/blob/d6ad96ae0e3b7fbb1a3a9245cc9156fcfb7cdb4a/packages/openai/src/image/__fixtures__/gpt-image-response-format-error.json",
            ),
            Quirk("A stream of images needs `n` to be 1.", "https://github.com/theopenco/llmgateway/issues/3963"),
        ),
    ),
    "azure": Preset(
        "Azure OpenAI (v1)",
        "https://{resource}.openai.azure.com/openai/v1",
        "https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle",
        auth_header="api-key",
        operations=(*TEXT_OPERATIONS, *AUDIO_OPERATIONS, *IMAGES_AND_EDITS),
        image_facts=(replace(OPENAI_IMAGES, source=_AZURE_IMAGES),),
        lists_models=False,
        audio_source="https://learn.microsoft.com/azure/ai-services/openai/reference-preview-latest",
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
            Quirk(
                "Audio is documented as preview, with `?api-version=preview`, which the gateway does not send.",
                "https://learn.microsoft.com/azure/ai-services/openai/reference-preview-latest",
            ),
            Quirk(
                "Transcriptions with some deployments are a 404 `DeploymentNotFound`.",
                "https://github.com/vercel/ai/pull/7985",
            ),
            Quirk(
                "Formats depend on the model, which a deployment's name does not show: they are not checked.",
                "https://github.com/lfnovo/esperanto/issues/263",
            ),
            Quirk(
                "Whisper models accept files of at most 25 MB.",
                "https://learn.microsoft.com/azure/ai-services/openai/whisper-quickstart",
            ),
            Quirk(
                "Images are documented with `?api-version=preview`, which the gateway does not send. WebP is rejected.",
                _AZURE_IMAGES,
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
    "deepinfra": Preset(
        "DeepInfra",
        "https://api.deepinfra.com/v1/openai",
        "https://deepinfra.com/docs/openai_api",
        operations=(*CHAT_AND_EMBEDDINGS, *AUDIO_OPERATIONS, *IMAGES_AND_EDITS),
        image_facts=(
            ImageFacts(
                _DEEPINFRA_IMAGES,
                image_part="image",
                optional={"negative_prompt": "negative_prompt", "strength": "strength"},
            ),
        ),
        audio_source="https://deepinfra.com/openai/whisper-large-v3-turbo-vllm/api",
        transcript_formats=(
            TranscriptFormats(
                WITH_SUBTITLES, "https://deepinfra.com/openai/whisper-large-v3-turbo-vllm/api", "openai/whisper"
            ),
        ),
        quirks=(
            Quirk(
                "A stream contains its usage in the last chunk, without being requested.",
                "https://deepinfra.com/docs/openai_api",
            ),
            Quirk(
                "Speech needs a `voice` for some models only.",
                "https://github.com/huggingface/huggingface_hub/pull/4559",
            ),
            Quirk("Images are base64 of JPEG files.", "https://deepinfra.com/Wan-AI/Wan2.7-Image-Edit/api"),
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
        operations=TEXT_OPERATIONS,
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
    "fireworks-audio": FIREWORKS_AUDIO,
    "fireworks-audio-turbo": replace(
        FIREWORKS_AUDIO,
        title="Fireworks AI (`whisper-v3-turbo`)",
        base_url="https://audio-turbo.api.fireworks.ai/v1",
        quirks=(
            Quirk(
                "Differs from OpenAI as `fireworks-audio` does.", "https://docs.fireworks.ai/guides/querying-asr-models"
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
        operations=(*CHAT_AND_RESPONSES, *AUDIO_OPERATIONS),
        stream_usage="https://github.com/withceleste/celeste-python/pull/351",
        audio_source="https://github.com/groq/groq-python/tree/main/src/groq/types/audio",
        transcript_formats=(TranscriptFormats(WITHOUT_SUBTITLES, "https://console.groq.com/docs/speech-text"),),
        quirks=(
            Quirk(
                "Rejects `logprobs`, `logit_bias`, `top_logprobs`, `messages[].name` and an `n` over 1 (400).",
                "https://console.groq.com/docs/openai",
            ),
            Quirk(
                "Translations require `whisper-large-v3`; `whisper-large-v3-turbo` does not translate.",
                "https://console.groq.com/docs/speech-to-text",
            ),
            Quirk(
                "Accepts files of at most 25 MB. Bills at least 10 seconds for each.",
                "https://console.groq.com/docs/speech-to-text",
            ),
            Quirk(
                "Rejects speech formats other than flac, mp3, mulaw, ogg and wav (400).",
                "https://github.com/livekit/agents-js/issues/650",
            ),
            Quirk(
                "Limits the input of its Orpheus speech models to 200 characters.",
                "https://github.com/coval-ai/benchmarks/pull/167",
            ),
            Quirk(
                "As users report, rejects a speech model (400) until an admin of the account accepts its terms.",
                "https://github.com/saisiddi/healthtracker/blob/HEAD/TTS_SETUP_GUIDE.md",
            ),
        ),
    ),
    "mistral": Preset(
        "Mistral",
        "https://api.mistral.ai/v1",
        "https://github.com/mistralai/platform-docs-public/blob/main/openapi.yaml",
        operations=(*CHAT_AND_EMBEDDINGS, *TRANSCRIPTIONS_ONLY),
        audio_source="https://github.com/mistralai/client-python/blob/main/docs/sdks/transcriptions/README.md",
        quirks=(
            Quirk(
                "Rejects unknown members (422), including `max_completion_tokens`; the body has no `error` member.",
                "https://github.com/editor-code-assistant/eca/issues/231",
            ),
            Quirk(
                "Rejects `stream_options.include_usage` (422); a stream contains its usage without being requested.",
                "https://github.com/dnakov/anon-kode/issues/53",
            ),
            Quirk(
                "Transcripts are always JSON: there is no `response_format`.",
                "https://github.com/mistralai/client-python/blob/main/docs/sdks/transcriptions/README.md",
            ),
            Quirk(
                "A streamed transcript has events of its own, and ends with `transcription.done`.",
                "https://github.com/mistralai/client-python/blob/main/docs/models/transcriptionstreameventtypes.md",
            ),
            Quirk(
                "Its speech is not OpenAI's: requests contain `voice_id`, responses are JSON with the audio in base64.",
                "https://github.com/mistralai/client-python/blob/main/docs/models/speechrequest.md",
            ),
        ),
    ),
    "openrouter": Preset(
        "OpenRouter",
        "https://openrouter.ai/api/v1",
        "https://openrouter.ai/docs/api/reference/errors-and-debugging",
        operations=TEXT_OPERATIONS,
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
        operations=(*CHAT_AND_EMBEDDINGS, *AUDIO_OPERATIONS, IMAGES.name),
        image_facts=(
            ImageFacts(
                _TOGETHER_IMAGES,
                size="width, height",
                base64_format="base64",
                optional=_TOGETHER_OPTIONAL,
                max_images=4,
            ),
            *(
                ImageFacts(
                    "https://docs.together.ai/docs/inference/images/parameters",
                    model_prefix=f"black-forest-labs/FLUX.1-{name}",
                    size="aspect_ratio",
                    base64_format="base64",
                    optional=_TOGETHER_OPTIONAL,
                    max_images=4,
                )
                for name in ("schnell", "kontext")
            ),
        ),
        audio_source="https://github.com/togethercomputer/together-py/tree/main/src/together/types/audio",
        transcript_formats=(
            TranscriptFormats(
                ("json", "verbose_json"),
                "https://github.com/togethercomputer/together-py/blob/aeeeea1313ed83aa00d2dfe84cce92e45a496aea/src/together/types/audio/transcription_create_params.py",
            ),
        ),
        quirks=(
            Quirk("Lists its models as a bare array.", "https://docs.together.ai/reference/models"),
            Quirk(
                "Speech is wav, mp3 or raw. `stream` instead of `stream_format` selects a stream, of raw audio only.",
                "https://github.com/togethercomputer/together-py/blob/979e9d694a030f31419987cf10ffd280e3825ff1/src/together/types/audio/speech_create_params.py",
            ),
            Quirk("An image to edit is the member `image_url` of a generation; there are no edits.", _TOGETHER_IMAGES),
        ),
    ),
    "xai": Preset(
        "xAI",
        "https://api.x.ai/v1",
        "https://docs.x.ai/developers/model-capabilities/text/comparison.md",
        operations=(*CHAT_AND_RESPONSES, IMAGES.name),
        image_facts=(ImageFacts(_XAI_IMAGES, size="aspect_ratio", max_images=10),),
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
            Quirk("Edits have a JSON format of their own, and are not supported.", _XAI_IMAGES),
            Quirk(
                "A moderated image is a 200 with empty `data`, which the gateway answers with a 502.",
                "https://github.com/vercel/ai/issues/19168",
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
        operations=(*TEXT_OPERATIONS, *AUDIO_TO_TEXT),
        stream_usage="https://github.com/vllm-project/vllm/blob/main/vllm/entrypoints/openai/engine/protocol.py",
        audio_source="https://docs.vllm.ai/en/v0.22.1/serving/online_serving/speech_to_text/",
        transcript_formats=(TranscriptFormats(WITHOUT_SUBTITLES, _VLLM_SERVING, optional=("verbose_json",)),),
        quirks=(
            Quirk(
                "Only some models transcribe and translate. `verbose_json` requires one with segment timestamps.",
                _VLLM_SERVING,
            ),
            Quirk(
                "A transcript as text is a JSON object with the content type `application/json`.",
                "https://github.com/vllm-project/vllm/issues/49095",
            ),
            Quirk("The transcript of silence is an empty `text`. Translations contain no usage.", _VLLM_SERVING),
            Quirk("A streamed transcript consists of chunks like a chat's, and ends with `[DONE]`.", _VLLM_SERVING),
            Quirk(
                "Accepts files of at most 25 MB, or `VLLM_MAX_AUDIO_CLIP_FILESIZE_MB`.",
                "https://docs.vllm.ai/en/v0.22.1/serving/online_serving/speech_to_text/",
            ),
        ),
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
        operations=TEXT_OPERATIONS,
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
        operations=TEXT_OPERATIONS,
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
        operations=TEXT_OPERATIONS,
        stream_usage="https://lmstudio.ai/docs/app/api-changelog",
        quirks=(
            Quirk(
                "Loads a model at its first request, and then lists all downloaded models.",
                "https://www.lmstudio.ai/docs/app/api/headless",
            ),
            Quirk("Unloads a model after an hour without requests.", "https://lmstudio.ai/docs/api/ttl-and-auto-evict"),
        ),
    ),
    "speaches": Preset(
        "speaches",
        "http://{host}:8000/v1",
        _SPEACHES_ROUTER,
        queue="gpu",
        operations=AUDIO_OPERATIONS,
        transcript_formats=(TranscriptFormats(WITH_SUBTITLES, _SPEACHES_WHISPER),),
        quirks=(
            Quirk("Lists and serves only downloaded models. Any other model is a 404 with `detail`.", _SPEACHES_ROUTER),
            Quirk(
                "The transcript of silence as text, SRT or VTT is an empty body, without `WEBVTT`.", _SPEACHES_WHISPER
            ),
            Quirk("Reads `timestamp_granularities[]`; without the brackets it is ignored.", _SPEACHES_ROUTER),
            Quirk(
                "A streamed transcript ends with `transcript.text.done`, whose `text` may be empty, without `[DONE]`.",
                _SPEACHES_WHISPER,
            ),
            Quirk(
                "Removes emojis and Markdown from the input of speech.",
                "https://github.com/speaches-ai/speaches/blob/02ca2707ea781be5d85c070db32e2eb4731310d3/src/speaches/routers/speech.py",
            ),
        ),
    ),
    "kokoro": Preset(
        "Kokoro-FastAPI",
        "http://{host}:8880/v1",
        _KOKORO_ROUTER,
        queue="gpu",
        operations=SPEECH_ONLY,
        quirks=(
            Quirk("An error is in `detail`. An unknown model is a 400 `invalid_model`.", _KOKORO_ROUTER),
            Quirk(
                "Sends the status at once, and the audio as it is generated: an error breaks the connection.",
                _KOKORO_ROUTER,
            ),
            Quirk(
                "Ignores `stream_format`, and always sends audio bytes.",
                "https://github.com/remsky/Kokoro-FastAPI/blob/153217afd4ad93918cd494fe86211cf9ddb2f501/api/src/structures/schemas.py",
            ),
            Quirk("Opus audio has the content type `audio/opus`.", _KOKORO_ROUTER),
        ),
    ),
    "localai": Preset(
        "LocalAI",
        "http://{host}:8080/v1",
        _LOCALAI_ROUTES,
        queue="gpu",
        operations=(*CHAT_AND_EMBEDDINGS, TRANSCRIPTIONS.name, SPEECH.name, *IMAGES_AND_EDITS),
        paths={IMAGE_EDITS.name: "/images/inpainting"},
        image_facts=(
            ImageFacts(
                _LOCALAI_INPAINTING,
                image_part="image",
                mask="white",
                needs_mask=True,
                optional={"seed": "seed"},
                negative_separator="|",
                accepts_json=False,
            ),
        ),
        transcript_formats=(TranscriptFormats(WITH_SUBTITLES, "https://localai.io/features/audio-to-text/"),),
        quirks=(
            Quirk("A size that it cannot read means 512x512. Edits are always 512x512.", _LOCALAI_IMAGES),
            Quirk(
                "The URL of an image is on the server's own host, also where callers cannot reach it.", _LOCALAI_IMAGES
            ),
            Quirk(
                "Translates if a transcription contains the field `translate`; it has no translations.", _LOCALAI_ROUTES
            ),
            Quirk(
                "A transcript without `response_format` is `verbose_json`. Text, SRT and VTT are `text/plain`.",
                _LOCALAI_TRANSCRIPT,
            ),
            Quirk("The transcript of silence is an empty `text`.", _LOCALAI_TRANSCRIPT),
            Quirk("A failed stream is a 200 with an event `error`, followed by `[DONE]`.", _LOCALAI_TRANSCRIPT),
            Quirk(
                "Rejects uploads over 15 MB (413), or `LOCALAI_UPLOAD_LIMIT`.",
                "https://github.com/mudler/LocalAI/issues/1733",
            ),
        ),
    ),
    "whisper-cpp": Preset(
        "whisper.cpp",
        "http://{host}:8080",
        "https://github.com/ggml-org/whisper.cpp/blob/master/examples/server/README.md",
        queue="gpu",
        operations=TRANSCRIPTIONS_ONLY,
        lists_models=False,
        paths={TRANSCRIPTIONS.name: "/inference"},
        transcript_formats=(TranscriptFormats(WITH_SUBTITLES, _WHISPER_SERVER),),
        quirks=(
            Quirk(
                "With `--inference-path /v1/audio/transcriptions`, use no preset, and a `base_url` that ends in `/v1`.",
                _WHISPER_SERVER,
            ),
            Quirk(
                "Documented for WAV files. With `--convert`, it converts other formats by ffmpeg.",
                "https://github.com/ggml-org/whisper.cpp/blob/master/examples/server/README.md",
            ),
            Quirk("Ignores `model`, and handles one request at a time: set `concurrency: 1`.", _WHISPER_SERVER),
            Quirk(
                "Translates if a transcription contains the field `translate`; it has no translations.", _WHISPER_SERVER
            ),
            Quirk(
                "A transcript as text has the content type `text/html`, as SRT `application/x-subrip`.", _WHISPER_SERVER
            ),
            Quirk("`error` is a string.", _WHISPER_SERVER),
        ),
    ),
    "stable-diffusion-cpp": Preset(
        "stable-diffusion.cpp",
        "http://{host}:1234/v1",
        _SD_CPP_ROUTES,
        queue="gpu",
        operations=IMAGES_AND_EDITS,
        image_facts=(
            ImageFacts(
                _SD_CPP_ROUTES,
                image_part="image[]",
                mask="white",
                prompt_element="sd_cpp_extra_args",
                accepts_json=False,
            ),
        ),
        quirks=(
            Quirk("Ignores `model`, and draws one image at a time: set `concurrency: 1`.", _SD_CPP_ROUTES),
            Quirk("Images are always base64. A response may contain fewer images than `n`.", _SD_CPP_ROUTES),
            Quirk(
                "A caller's prompt may contain `<sd_cpp_extra_args>` with JSON, which sets options of the server.",
                _SD_CPP_ROUTES,
            ),
            Quirk("`error` is a string.", _SD_CPP_ROUTES),
        ),
    ),
    "vllm-omni": Preset(
        "vLLM-Omni",
        "http://{host}:8000/v1",
        _VLLM_OMNI_EDITS,
        queue="gpu",
        operations=IMAGES_AND_EDITS,
        image_facts=(
            ImageFacts(
                _VLLM_OMNI_IMAGES,
                mask="white",
                mask_part="mask_image",
                optional={"negative_prompt": "negative_prompt", "seed": "seed"},
                max_images=10,
                accepts_json=False,
            ),
        ),
        quirks=(
            Quirk("Images are base64; a `response_format` of `url` is rejected.", _VLLM_OMNI_IMAGES),
            Quirk("Only autoregressive models stream, with events of their own.", _VLLM_OMNI_EDITS),
        ),
    ),
    "openedai-speech": Preset(
        "openedai-speech",
        "http://{host}:8000/v1",
        "https://github.com/matatonic/openedai-speech/blob/main/README.md",
        queue="gpu",
        operations=SPEECH_ONLY,
        quirks=(
            Quirk(
                "The members of an error are at the root of the body, without `error`.",
                "https://github.com/matatonic/openedai-speech/blob/18c73ce827c63f5208d74009fade38ee38c5fbed/openedai.py",
            ),
            Quirk(
                "Content types are `audio/ogg;codec=opus`, `audio/x-flac` and `audio/pcm;rate=22050`.",
                "https://github.com/matatonic/openedai-speech/blob/0fce67957d25898707f1e1bf6d53780cc595cb1a/speech.py",
            ),
        ),
    ),
}

CATALOGUE: Mapping[str, Preset] = MappingProxyType(HOSTED | NATIVE | SELF_HOSTED)
