"""AI Server's requests for audio and images, and their responses."""

from aiserver.dtos.chat import OPTIONS, STATUS
from aiserver.dtos.jobs import QUEUE_OPTIONS, STATE_MEMBERS, STATUS_REFERENCE
from aiserver.dtos.schema import Dto, DtoMember, DtoRequest, required

TAG = "Media"

STATE = DtoMember("state", "string", "Your own text, which the callback contains")
MODEL = DtoMember("model", "string", "The name of the model")
SEED = DtoMember("seed", "long", "For repeatable results, where the provider supports it")
DENOISE = DtoMember("denoise", "double", "How much of the image changes, 0 to 1")
IMAGE_FILES, MASK_FILES, AUDIO_FILES = ("image",), ("image", "mask"), ("audio",)
PROMPTS = (
    required("positivePrompt", "string", "What the image shows"),
    DtoMember("negativePrompt", "string", "What it does not show, where the provider supports it"),
)
TEXT_TO_IMAGE = (
    *PROMPTS,
    required("model", "string", "The name of the model"),
    DtoMember("width", "int", "In pixels, 64 to 2048, with the height"),
    DtoMember("height", "int", "In pixels, 64 to 2048, with the width"),
    DtoMember("batchSize", "int", "How many images, 1 to 10"),
    SEED,
)
IMAGE_TO_IMAGE = (*PROMPTS, MODEL, DENOISE, DtoMember("batchSize", "int", "How many images, 1 to 10"), SEED)
IMAGE_WITH_MASK = (*PROMPTS, MODEL, DENOISE, SEED)
IMAGE_TO_TEXT = (MODEL, DtoMember("prompt", "string", "What to say about the image"))
ARTIFACTS, TEXTS = "ArtifactGenerationResponse", "TextGenerationResponse"


def _pair(
    name: str, doc: str, members: tuple[DtoMember, ...], returns: str, files: tuple[str, ...] = ()
) -> tuple[DtoRequest, DtoRequest]:
    """A request that is answered at once, and its queued twin."""
    return (
        DtoRequest(name, doc, (*members, *OPTIONS), returns=returns, files=files, tag=TAG),
        DtoRequest(
            f"Queue{name}",
            f"{doc.removesuffix('.')}, as a job.",
            (*members, *QUEUE_OPTIONS, STATE),
            returns="QueueGenerationResponse",
            files=files,
            tag=TAG,
        ),
    )


SPEECH_OPTIONS = (DtoMember("model", "string", "The name of the model, or model:voice"), SEED)

TYPES: tuple[Dto, ...] = (
    *_pair("TextToImage", "Draw images.", TEXT_TO_IMAGE, ARTIFACTS),
    *_pair("ImageToImage", "Draw images after an image.", IMAGE_TO_IMAGE, ARTIFACTS, IMAGE_FILES),
    *_pair("ImageWithMask", "Edit the white area of a mask.", IMAGE_WITH_MASK, ARTIFACTS, MASK_FILES),
    *_pair("ImageToText", "Describe an image.", IMAGE_TO_TEXT, TEXTS, IMAGE_FILES),
    *_pair("SpeechToText", "Transcribe audio.", (MODEL,), TEXTS, AUDIO_FILES),
    DtoRequest(
        "TextToSpeech",
        "Speak a text.",
        (required("input", "string", "The text"), *SPEECH_OPTIONS, *OPTIONS),
        returns=ARTIFACTS,
        tag=TAG,
    ),
    DtoRequest(
        "QueueTextToSpeech",
        "Speak a text, as a job.",
        (required("text", "string", "The text"), *SPEECH_OPTIONS, *QUEUE_OPTIONS, STATE),
        returns="QueueGenerationResponse",
        tag=TAG,
    ),
    Dto(
        "ArtifactGenerationResponse",
        "Generated files.",
        (
            required("results", "ArtifactOutput[]", "The files"),
            DtoMember("outputs", "ArtifactOutput[]", "The same, for older clients"),
            DtoMember("duration", "duration", "How long it took"),
            STATUS,
        ),
    ),
    Dto(
        "TextGenerationResponse",
        "Generated texts.",
        (
            required("results", "TextOutput[]", "The texts; a second one of a transcript is JSON with times"),
            DtoMember("textOutputs", "TextOutput[]", "The same, for older clients"),
            DtoMember("duration", "duration", "How long it took"),
            STATUS,
        ),
    ),
    Dto(
        "ArtifactOutput",
        "A generated file.",
        (
            required("url", "string", "Its URL, which works without a key until it expires"),
            required("fileName", "string", "Its name"),
            DtoMember("provider", "string", "The provider that generated it"),
        ),
    ),
    Dto("TextOutput", "A generated text.", (required("text", "string", "The text"),)),
    Dto(
        "QueueGenerationResponse",
        "The accepted job.",
        (
            required("jobId", "long", "The job's id"),
            DtoMember("id", "long", "The same"),
            required("refId", "string", "Your id of the job, or a generated one"),
            required("jobState", "BackgroundJobState", "Its state"),
            required("status", "string", "The state as one line for people"),
            required("statusUrl", "string", "The URL of its status"),
            STATUS,
        ),
    ),
    DtoRequest(
        "GetArtifactGenerationStatus",
        "The state of a job, with its files once it has completed.",
        STATUS_REFERENCE,
        returns="GetArtifactGenerationStatusResponse",
        method="GET",
        tag=TAG,
    ),
    Dto(
        "GetArtifactGenerationStatusResponse",
        "The state of a job that generates files.",
        (
            *STATE_MEMBERS,
            DtoMember("results", "ArtifactOutput[]", "The files"),
            DtoMember("outputs", "ArtifactOutput[]", "The same, for older clients"),
        ),
    ),
    DtoRequest(
        "GetTextGenerationStatus",
        "The state of a job, with its texts once it has completed.",
        STATUS_REFERENCE,
        returns="GetTextGenerationStatusResponse",
        method="GET",
        tag=TAG,
    ),
    Dto(
        "GetTextGenerationStatusResponse",
        "The state of a job that generates texts.",
        (
            *STATE_MEMBERS,
            DtoMember("results", "TextOutput[]", "The texts"),
            DtoMember("textOutputs", "TextOutput[]", "The same, for older clients"),
            DtoMember("result", "any", "The provider's response"),
        ),
    ),
    Dto(
        "GenerationCallback",
        "The body of the callback of a queued request for audio or images.",
        (
            DtoMember("state", "string", "The state of the request"),
            required("refId", "string", "Your id of the job, or a generated one"),
            DtoMember("outputs", "ArtifactOutput[]", "The files"),
            DtoMember("textOutputs", "TextOutput[]", "The texts"),
            STATUS,
        ),
    ),
    DtoRequest(
        "QueryTextToSpeechVoices",
        "List the configured voices.",
        (DtoMember("skip", "int", "How many to leave out"), DtoMember("take", "int", "The most voices of a page")),
        returns="QueryTextToSpeechVoicesResponse",
        method="GET",
        tag=TAG,
    ),
    Dto(
        "QueryTextToSpeechVoicesResponse",
        "A page of voices.",
        (
            required("offset", "int", "How many were left out"),
            required("total", "int", "How many there are"),
            required("results", "TextToSpeechVoice[]", "The voices"),
            STATUS,
        ),
    ),
    Dto(
        "TextToSpeechVoice",
        "A voice.",
        (required("id", "string", "Its id"), required("model", "string", "The model that speaks with it")),
    ),
    DtoRequest(
        "ActiveMediaModels",
        "List the models for images.",
        returns="ActiveMediaModelsResponse",
        method="GET",
        tag=TAG,
    ),
    Dto(
        "ActiveMediaModelsResponse",
        "The models for images.",
        (required("results", "MediaModelEntry[]", "The models"), STATUS),
    ),
    Dto(
        "MediaModelEntry",
        "A model for images.",
        (required("key", "string", "Its name in requests"), required("value", "string", "Its name for people")),
    ),
)
