"""The table of types agrees with the code: what requests may contain, what responses contain, and OpenAI's types."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

import pytest
from openai.types import CompletionUsage, CreateEmbeddingResponse, Embedding
from openai.types.chat import ChatCompletion, ChatCompletionMessage, completion_create_params
from openai.types.chat.chat_completion import Choice, ChoiceLogprobs
from openai.types.chat.chat_completion_token_logprob import ChatCompletionTokenLogprob

from aiserver.dtos.schema import SCALARS, Dto, DtoMember, DtoRequest, Shape
from aiserver.dtos.table import TABLE
from aiserver.jobs.job import Job
from aiserver.jobs.states import CallbackState, JobState
from aiserver.usecases import views
from aiserver.wire import errors, schemas
from aiserver.wire.aiserver_images import bind_image_to_image, bind_image_with_mask, bind_text_to_image
from aiserver.wire.render import render
from functions.queue import handler as queue_handler
from functions.status import handler as status_handler

# Members that the binder knows, and which typed clients do not need: superseded by tools.
SUPERSEDED = {"function_call", "functions"}
# Members that some providers accept or send beside OpenAI's.
BESIDE_OPENAI = {"enable_thinking", "reasoning_content", "responseStatus"}
USAGE_BESIDE_CHAT = {"input_tokens", "output_tokens", "type", "seconds", "characters", "images", "estimated"}
JOB = Job(
    id=1,
    owner="me",
    ref_id="r",
    operation="chat.completions",
    model="m",
    queue="hosted",
    state=JobState.COMPLETED,
    created_at=1,
    deadline=9,
    request_location="item",
    request_hash="h",
    base_url="https://x.io",
    tag="t",
    provider="p",
    reply_to="https://y.io",
    ignored="seed",
    attempt=1,
    calls=1,
    maybe_billed=1,
    wait_reason="provider_busy",
    started_at=2,
    completed_at=3,
    served_by="p",
    result_location="item",
    result_bytes=2,
    usage='{"total_tokens":1}',
    error_code="NotFound",
    error="e",
    callback=CallbackState.PENDING,
    callback_waits=1,
    callback_next_at=4,
    callback_last_status=500,
    callback_last_error="e",
)
AUDIO, IMAGE = replace(JOB, operation="audio.transcriptions"), replace(JOB, operation="images.edits", outputs="a.png")
FILES = [{"url": "https://x.io/artifacts/a.png", "fileName": "a.png", "provider": "p"}]
CHAT_RESULT = b'{"id":"i","object":"chat.completion","created":1,"model":"m","choices":[]}'
ERROR = {"responseStatus": errors.response_status("NotFound", "m", ())}

# What a function sends, by the type that describes it.
DOCUMENTS: list[tuple[str, Mapping[str, Any]]] = [
    ("GetOpenAiChatStatusResponse", json.loads(views.status_view(JOB, CHAT_RESULT))),
    ("GetTextGenerationStatusResponse", json.loads(views.status_view(AUDIO, b'{"text":"hi"}'))),
    ("GetArtifactGenerationStatusResponse", json.loads(views.status_view(IMAGE, None, FILES))),
    ("OpenAiJob", json.loads(render(views.record_view(JOB, b"{}", b"{}")))),
    ("QueueOpenAiChatResponse", views.accepted_view(JOB)),
    ("QueueGenerationResponse", views.accepted_media_view(JOB, "QueueTextToImage")),
    ("JobEvent", json.loads(views.event_view(JOB))),
    ("GenerationCallback", json.loads(views.generation_callback(replace(JOB, client_state="s"), None, FILES))),
    ("ResponseStatus", errors.response_status("NotFound", "m", ())),
]
CHECKS = {
    "string": str,
    "int": int,
    "long": int,
    "double": (int, float),
    "bool": bool,
    "date": str,
    "duration": str,
    "any": object,
}


def members(name: str) -> dict[str, DtoMember]:
    dto = TABLE.find(name)
    assert dto, name
    return {member.name: member for member in TABLE.all_members(dto)}


def check(type_name: str, document: Mapping[str, Any]) -> None:
    """Every member of the document is in the table, with a fitting type, and every required one is there."""
    known = members(type_name)
    assert set(document) <= set(known), type_name
    assert {name for name, member in known.items() if member.is_required} <= set(document), type_name
    for name, value in document.items():
        for item in elements(known[name], value):
            check_value(known[name], item)


def elements(member: DtoMember, value: Any) -> Iterable[Any]:
    if member.shape is Shape.LIST:
        assert isinstance(value, list)
        return cast(list[Any], value)
    return cast(dict[str, Any], value).values() if member.shape is Shape.MAP else [value]


def check_value(member: DtoMember, value: Any) -> None:
    if member.is_scalar:
        assert isinstance(value, CHECKS[member.element]), member
    elif member.element in TABLE.enumeration_names:
        assert value in TABLE.enumerations[0].values
    else:
        check(member.element, value)


@pytest.mark.parametrize(("type_name", "document"), DOCUMENTS, ids=[name for name, _ in DOCUMENTS])
def test_documents_of_the_code_are_described_by_the_table(type_name: str, document: Mapping[str, Any]) -> None:
    check(type_name, document)


@pytest.mark.parametrize(("type_name", "document"), DOCUMENTS, ids=[name for name, _ in DOCUMENTS])
def test_every_member_of_a_response_is_sent(type_name: str, document: Mapping[str, Any]) -> None:
    """No member of the table is one that no code sends."""
    unsent = set(members(type_name)) - set(document)
    # Of documents that the job of the test does not have all at once.
    assert unsent <= {
        *(
            "requestUrl",
            "resultUrl",
            "responseStatus",
            "results",
            "outputs",
            "textOutputs",
            "result",
            "stackTrace",
            "state",
        ),
    }


def test_chat_members_are_those_that_requests_may_have() -> None:
    known = set(schemas.CHAT.names) - SUPERSEDED
    assert set(members("OpenAiChat")) - BESIDE_OPENAI == known
    gateway = {"refId", "provider", "tag"}
    assert set(members("OpenAiChatCompletion")) == set(members("OpenAiChat")) | gateway


def test_message_members_are_those_that_requests_may_have() -> None:
    assert set(members("OpenAiMessage")) == set(schemas.CHAT.nested["messages"].names) - SUPERSEDED


def test_embedding_members_are_those_that_requests_may_have() -> None:
    assert set(members("OpenAiEmbeddings")) - {"refId", "provider", "tag"} == set(schemas.EMBEDDINGS.names)


@pytest.mark.parametrize(
    ("type_name", "openai_names"),
    [
        ("OpenAiChat", set(completion_create_params.CompletionCreateParamsBase.__annotations__) | {"stream"}),
        ("OpenAiChatResponse", set(ChatCompletion.model_fields)),
        ("Choice", set(Choice.model_fields)),
        ("ChoiceMessage", set(ChatCompletionMessage.model_fields)),
        ("Logprobs", set(ChoiceLogprobs.model_fields)),
        ("LogprobItem", set(ChatCompletionTokenLogprob.model_fields)),
        ("OpenAiEmbeddingsResponse", set(CreateEmbeddingResponse.model_fields)),
        ("OpenAiEmbedding", set(Embedding.model_fields)),
    ],
)
def test_relayed_members_are_openais(type_name: str, openai_names: set[str]) -> None:
    assert set(members(type_name)) - BESIDE_OPENAI <= openai_names


def test_usage_contains_openais_members_and_units_of_media() -> None:
    assert set(members("OpenAiUsage")) == set(CompletionUsage.model_fields) | USAGE_BESIDE_CHAT


def test_every_request_is_routed_and_every_route_is_a_request() -> None:
    """POST requests are those of the queue and media functions, GET requests those of the status function."""
    routed = {*queue_handler.NAMES, *status_handler.NAMES, "openaichatcompletion"}
    synchronous = {
        request.name.lower() for request in TABLE.requests if request.files or request.name == "TextToSpeech"
    }
    described = {request.name.lower() for request in TABLE.requests}
    aliases = {name for name in routed if name.endswith("[]")}
    assert routed - aliases <= described
    assert described <= routed | synchronous | {"texttoimage"}


def test_required_media_members_are_those_that_binding_requires() -> None:
    for bind, name in ((bind_text_to_image, "TextToImage"), (bind_image_to_image, "ImageToImage")):
        required = {member.name for member in members(name).values() if member.is_required}
        assert "positivePrompt" in required
        with pytest.raises(Exception, match=r"'\w+'"):
            bind(b"{}", "application/json", {}, name=name)
    with pytest.raises(Exception, match="'image'"):
        bind_image_with_mask(b'{"positivePrompt":"p"}', "application/json", {}, name="ImageWithMask")


@pytest.mark.parametrize("dto", TABLE.dtos, ids=lambda dto: dto.name)
def test_type_is_complete_and_refers_to_types_of_the_table(dto: Dto) -> None:
    names = {row.name for row in TABLE.dtos} | TABLE.enumeration_names
    assert set(TABLE.references(dto)) <= names
    assert dto.doc.endswith(".")
    member_names = [member.name for member in TABLE.all_members(dto)]
    assert len(member_names) == len(set(member_names))
    for member in dto.members:
        assert member.doc
        assert not member.doc.endswith(".")
        assert member.is_scalar == (member.element in SCALARS)
    if isinstance(dto, DtoRequest):
        assert dto.method in ("GET", "POST")
        assert dto.tag
