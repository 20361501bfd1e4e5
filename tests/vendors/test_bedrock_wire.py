"""Requests to Bedrock equal those of boto3, including the signature, and arrive unchanged after signing."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.credentials import Credentials
from botocore.exceptions import CredentialRetrievalError

from aiserver.aws.bedrock import BedrockSigner
from aiserver.errors import ProviderAuth
from aiserver.providers.adapters.base.validate import parse_chat
from aiserver.providers.adapters.bedrock import BEDROCK
from aiserver.providers.call import Upstream
from aiserver.providers.provider import Provider
from aiserver.providers.request import ProviderRequest
from tests.providers.fake_provider import FakeResponse, run_fake_provider
from tests.vendors.bedrock import BedrockDialect
from tests.vendors.dispatch import send
from tests.vendors.semantics import Response

REGION = "eu-central-1"
KEYS = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "secret"}
PROFILE = "arn:aws:bedrock:eu-central-1:123456789012:inference-profile/eu.anthropic.claude-sonnet-4-6"
MODELS = ["amazon.nova-2-lite-v1:0", "us.anthropic.claude-haiku-4-5-20251001-v1:0", PROFILE, "openai.gpt-oss-20b-1:0"]


def provider(base_url: str = f"https://bedrock-runtime.{REGION}.amazonaws.com", **options: Any) -> Provider:
    return Provider.model_validate(
        {"name": "b", "type": "bedrock", "base_url": base_url, "models": {"*": ""}} | options
    )


def session(**options: str) -> boto3.Session:
    return boto3.Session(region_name=REGION, **KEYS, **options)


def boto3_request(session: boto3.Session, *, streams: bool, accept: str | None, **parameters: Any) -> AWSRequest:
    """The request that boto3 builds; it gets an empty response."""
    requests: list[Any] = []

    def capture(request: Any, **_: Any) -> AWSResponse:
        requests.append(request)
        return AWSResponse(request.url, 200, {}, _Raw(b"{}"))

    def set_accept(request: Any, **_: Any) -> None:
        if accept:
            request.headers["accept"] = accept

    runtime: Any = session.client("bedrock-runtime")
    runtime.meta.events.register("before-sign.bedrock-runtime.*", set_accept)
    runtime.meta.events.register("before-send.bedrock-runtime.*", capture)
    (runtime.converse_stream if streams else runtime.converse)(**parameters)
    return requests[0]


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
def test_signed_request_equals_boto3_request(model: str, streams: bool, token: dict[str, str]) -> None:
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
    request = BEDROCK.build_request(parse_chat(json.dumps(body).encode(), BEDROCK.capabilities))
    boto3_signed, signed = _sign_in_the_same_second(request, model, streams, session(**token))
    assert boto3_signed.url == f"https://bedrock-runtime.{REGION}.amazonaws.com{request.path}"
    assert json.loads(boto3_signed.body) == json.loads(request.body or b"")
    signed_headers = {name.lower(): value for name, value in signed.headers.items()}
    assert signed_headers["authorization"] == header(boto3_signed, "Authorization")
    assert signed_headers.get("x-amz-security-token") == token.get("aws_session_token")


def _sign_in_the_same_second(
    request: ProviderRequest, model: str, streams: bool, aws_session: boto3.Session
) -> tuple[Any, ProviderRequest]:
    """boto3's request and ours with the same body bytes, signed in the same second."""
    while True:
        boto3_signed = boto3_request(
            aws_session,
            streams=streams,
            accept=request.headers.get("accept"),
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
        unsigned = ProviderRequest(request.method, request.path, None, boto3_signed.body, request.headers)
        signed = BedrockSigner(aws_session)(provider(), unsigned)
        if signed.headers["X-Amz-Date"] == header(boto3_signed, "X-Amz-Date"):
            return boto3_signed, signed


@pytest.mark.parametrize("model", MODELS)
def test_request_arrives_as_it_was_signed(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", REGION)
    request = json.dumps({"model": model, "messages": [{"role": "user", "content": "ü"}]}).encode()
    path = BEDROCK.build_request(parse_chat(request, BEDROCK.capabilities)).path
    with run_fake_provider({path}, ("content-type", "application/json"), FakeResponse(401, b"{}")) as server:
        server.responses.append(FakeResponse(200, BedrockDialect().encode_response(Response("Hi"))))
        upstream = Upstream(provider(server.origin), model, model_is_configured=True)
        response = send(upstream, request, session=session())
        assert json.loads(response.body)["model"] == model
        received = server.requests[-1]
    signed_headers = received.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {"host", "content-type", "x-amz-date"} <= set(signed_headers)
    headers = {name: received.headers[name] for name in signed_headers if name != "host"}
    recomputed = AWSRequest(
        received.method, f"http://{received.headers['host']}{received.path}", headers, received.body
    )
    recomputed.context["timestamp"] = received.headers["x-amz-date"]
    signer = SigV4Auth(Credentials(*KEYS.values()), "bedrock", REGION)
    signature = signer.signature(signer.string_to_sign(recomputed, signer.canonical_request(recomputed)), recomputed)
    assert received.headers["authorization"].endswith(f"Signature={signature}")


def test_request_with_an_api_key_is_not_signed() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
    paths = {"/model/m/converse"}
    with run_fake_provider(paths, ("authorization", "Bearer k"), FakeResponse(401, b"{}")) as server:
        server.responses.append(FakeResponse(200, BedrockDialect().encode_response(Response("Hi"))))
        upstream = Upstream(provider(server.origin), "m", model_is_configured=True, api_key="k")
        send(upstream, body, session=session())
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
def test_signing_region_comes_from_the_host_or_the_environment(
    host: str, region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    request = ProviderRequest("POST", "/model/m/converse", None, b"{}")
    signed = BedrockSigner(session())(provider(f"https://{host}"), request)
    assert f"/{region}/bedrock/aws4_request" in signed.headers["Authorization"]


def test_missing_credentials_or_region_is_a_provider_auth_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION", raising=False)
    request = ProviderRequest("POST", "/model/m/converse", None, b"{}")

    class NoCredentials:
        def get_credentials(self) -> None:
            return None

    class ExpiredCredentials:
        def get_credentials(self) -> None:
            raise CredentialRetrievalError(provider="sso", error_msg="expired")

    with pytest.raises(ProviderAuth):
        BedrockSigner(ExpiredCredentials())(provider(), request)
    with pytest.raises(ProviderAuth):
        BedrockSigner(NoCredentials())(provider(), request)
    with pytest.raises(ProviderAuth):
        BedrockSigner(session())(provider("https://proxy.example.com"), request)
