"""Requests to Bedrock are those that AWS's own SDK makes, signature and all, and arrive as they were signed."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.credentials import Credentials
from botocore.exceptions import CredentialRetrievalError

from aiserver.aws.bedrock import BedrockWire
from aiserver.errors import ProviderAuth
from aiserver.providers.bedrock import BEDROCK
from aiserver.providers.http import ProviderRequest, create_client
from aiserver.providers.provider import Provider
from aiserver.providers.registry import AdapterRegistry
from aiserver.providers.translation.chat import Chat
from tests.fakes import FakeClock
from tests.providers.fake_provider import Said, stand_in
from tests.vendors.bedrock import BedrockDialect
from tests.vendors.semantics import Answer

REGION = "eu-central-1"
KEYS = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "secret"}
PROFILE = "arn:aws:bedrock:eu-central-1:123456789012:inference-profile/eu.anthropic.claude-sonnet-4-6"
MODELS = ["amazon.nova-2-lite-v1:0", "us.anthropic.claude-haiku-4-5-20251001-v1:0", PROFILE, "openai.gpt-oss-20b-1:0"]


def provider(base_url: str = f"https://bedrock-runtime.{REGION}.amazonaws.com", **more: Any) -> Provider:
    return Provider.model_validate({"name": "b", "type": "bedrock", "base_url": base_url, "models": {"*": ""}} | more)


def session(**more: str) -> boto3.Session:
    return boto3.Session(region_name=REGION, **KEYS, **more)


def boto3_sends(session: boto3.Session, *, streams: bool, accept: str | None, **asked: Any) -> AWSRequest:
    """The request that boto3 makes, which nobody answers with more than it must."""
    sent: list[Any] = []

    def answer(request: Any, **_: Any) -> AWSResponse:
        sent.append(request)
        return AWSResponse(request.url, 200, {}, _Raw(b"{}"))

    def accepted(request: Any, **_: Any) -> None:
        if accept:
            request.headers["accept"] = accept

    runtime: Any = session.client("bedrock-runtime")
    runtime.meta.events.register("before-sign.bedrock-runtime.*", accepted)
    runtime.meta.events.register("before-send.bedrock-runtime.*", answer)
    (runtime.converse_stream if streams else runtime.converse)(**asked)
    return sent[0]


class _Raw:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self._body


def header(request: Any, name: str) -> str:
    value = request.headers[name]
    return value.decode() if isinstance(value, bytes) else value


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("token", [{}, {"aws_session_token": "token"}])
def test_a_request_is_the_one_that_boto3_makes(model: str, streams: bool, token: dict[str, str]) -> None:
    body = {
        "model": model,
        "stream": streams,
        "max_tokens": 50,
        "temperature": 0.25,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Grüße, was ist das?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
                ],
            },
        ],
    }
    made = BEDROCK.build_request(Chat(json.dumps(body).encode(), BEDROCK.capabilities))
    theirs, ours = _at_one_moment(made, model, streams, session(**token))
    assert theirs.url == f"https://bedrock-runtime.{REGION}.amazonaws.com{made.path}"
    assert json.loads(theirs.body) == json.loads(made.body or b"")
    signed = {name.lower(): value for name, value in ours.headers.items()}
    assert signed["authorization"] == header(theirs, "Authorization")
    assert signed.get("x-amz-security-token") == token.get("aws_session_token")


def _at_one_moment(
    made: ProviderRequest, model: str, streams: bool, keys: boto3.Session
) -> tuple[Any, ProviderRequest]:
    """Boto3's request, and ours with its body's very bytes, signed in the same second."""
    while True:
        theirs = boto3_sends(
            keys,
            streams=streams,
            accept=made.headers.get("accept"),
            modelId=model,
            system=[{"text": "Be brief."}],
            inferenceConfig={"maxTokens": 50, "temperature": 0.25},
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"text": "Grüße, was ist das?"},
                        {"image": {"format": "png", "source": {"bytes": b"\x89PNG\r\n\x1a\n"}}},
                    ],
                }
            ],
        )
        asked = ProviderRequest(made.method, made.path, None, theirs.body, made.headers)
        ours = BedrockWire(keys).sign(provider(), asked)
        if ours.headers["X-Amz-Date"] == header(theirs, "X-Amz-Date"):
            return theirs, ours


@pytest.mark.parametrize("model", MODELS)
def test_what_was_signed_is_what_arrives(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", REGION)
    asked = json.dumps({"model": model, "messages": [{"role": "user", "content": "ü"}]}).encode()
    path = BEDROCK.build_request(Chat(asked, BEDROCK.capabilities)).path
    with create_client() as http, stand_in({path}, ("content-type", "application/json"), Said(401, b"{}")) as server:
        server.answers.append(Said(200, BedrockDialect().message(Answer("Hi"))))
        caller = AdapterRegistry(lambda: http, FakeClock(), lambda: BedrockWire(session()))["bedrock"]
        how: Any = {"idempotency_key": None, "model_is_configured": True, "timeout_s": 5}
        answer = caller.call(provider(server.origin), "chat.completions", asked, api_key=None, **how)
        assert json.loads(answer.body)["model"] == model
        sent = server.requests[-1]
    signed = sent.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {"host", "content-type", "x-amz-date"} <= set(signed)
    headers = {name: sent.headers[name] for name in signed if name != "host"}
    again = AWSRequest(sent.method, f"http://{sent.headers['host']}{sent.path}", headers, sent.body)
    again.context["timestamp"] = sent.headers["x-amz-date"]
    signer = SigV4Auth(Credentials(*KEYS.values()), "bedrock", REGION)
    signature = signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again)
    assert sent.headers["authorization"].endswith(f"Signature={signature}")


def test_a_request_with_a_key_is_not_signed() -> None:
    asked = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
    with (
        create_client() as http,
        stand_in({"/model/m/converse"}, ("authorization", "Bearer k"), Said(401, b"{}")) as server,
    ):
        server.answers.append(Said(200, BedrockDialect().message(Answer("Hi"))))
        caller = AdapterRegistry(lambda: http, FakeClock(), lambda: BedrockWire(session()))["bedrock"]
        how: Any = {"idempotency_key": None, "model_is_configured": True, "timeout_s": 5}
        caller.call(provider(server.origin), "chat.completions", asked, api_key="k", **how)
        assert not [name for name in server.requests[-1].headers if name.startswith("x-amz")]


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("bedrock-runtime.us-west-2.amazonaws.com", "us-west-2"),
        ("bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("bedrock-runtime.eu-west-1.api.aws", "eu-west-1"),
        ("vpce-0123-abcd.bedrock-runtime.eu-north-1.vpce.amazonaws.com", "eu-north-1"),
        ("proxy.example.com", "ap-south-1"),
    ],
)
def test_the_region_is_the_host_s_or_that_of_the_function(
    host: str, region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    signed = BedrockWire(session()).sign(
        provider(f"https://{host}"), ProviderRequest("POST", "/model/m/converse", None, b"{}")
    )
    assert f"/{region}/bedrock/aws4_request" in signed.headers["Authorization"]


def test_without_credentials_or_a_region_it_is_the_gateway_s_own_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION", raising=False)
    asked = ProviderRequest("POST", "/model/m/converse", None, b"{}")

    class Nobody:
        def get_credentials(self) -> None:
            return None

    class Expired:
        def get_credentials(self) -> None:
            raise CredentialRetrievalError(provider="sso", error_msg="expired")

    with pytest.raises(ProviderAuth):
        BedrockWire(Expired()).sign(provider(), asked)
    with pytest.raises(ProviderAuth):
        BedrockWire(Nobody()).sign(provider(), asked)
    with pytest.raises(ProviderAuth):
        BedrockWire(session()).sign(provider("https://proxy.example.com"), asked)
