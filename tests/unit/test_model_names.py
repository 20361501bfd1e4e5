"""The request body for a provider contains the upstream model name and is otherwise the caller's text."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aiserver.clock import Deadline
from aiserver.errors import InvalidRequest
from aiserver.operations import CHAT
from aiserver.providers.adapters.openai.request import build_json
from aiserver.providers.call import ProviderCall
from aiserver.providers.provider import Provider
from aiserver.routing.selection import select_candidates
from tests.body_strategies import BODIES, Tree, expected_binding, with_model


def request_body(body: str, upstream_model: str) -> str:
    """Return the body sent to a provider that maps every model to `upstream_model`."""
    provider = Provider(name="p", base_url="http://127.0.0.1:1/v1", models={"*": upstream_model})
    (candidate,) = select_candidates([provider], "any")
    call = ProviderCall(CHAT, body.encode(), Deadline(0), Deadline(0))
    return build_json(candidate.upstream(), call).decode()


@pytest.mark.parametrize("text", ['"a\\/b"', '"a\\u002fb"', '"\\u0061/b"', '"a/b"'])
def test_model_of_the_same_name_passes_byte_for_byte_however_escaped(text: str) -> None:
    body = '{"messages":[], "model" : %s,"n":1.0}' % text
    assert request_body(body, "a/b") == body


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"model":"m","x":{"model":"m"}}', '{"model":"n","x":{"model":"m"}}'),
        ('{"x":{"model":"m"},"model":"m"}', '{"x":{"model":"m"},"model":"n"}'),
        ('{"x":{"model":"m"},"model":"m","y":[{"model":"m"}]}', '{"x":{"model":"m"},"model":"n","y":[{"model":"m"}]}'),
        ('{"x":{"model":"m"},"mode\\u006c":"m"}', '{"x":{"model":"m"},"mode\\u006c":"n"}'),
        ('{"x":"\\"model\\":","model":"m"}', '{"x":"\\"model\\":","model":"n"}'),
        ('{"x \\"model":"m","model":"m"}', '{"x \\"model":"m","model":"n"}'),
        ('{"x":"model","model":"m"}', '{"x":"model","model":"n"}'),
        ('{"語":"😀","model":\t"m"}', '{"語":"😀","model":\t"n"}'),
        ('{"x":1}', '{"x":1}'),
    ],
)
def test_upstream_name_replaces_only_the_root_model(body: str, expected: str) -> None:
    assert request_body(body, "n") == expected


@given(BODIES, st.sampled_from(["m", "a/b", "語😀", 'quo"te', "other"]))
def test_only_the_model_name_changes(body: Tree, name: str) -> None:
    try:
        binding = expected_binding(body)
    except InvalidRequest:
        assume(False)
        raise
    assume(isinstance(binding.value.get("model"), str))
    assert request_body(binding.text(), name) == with_model(binding, name).text()
