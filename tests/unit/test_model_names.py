"""A provider is asked for a model by the name it knows it by, in the caller's own text."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aiserver.errors import InvalidRequest
from aiserver.providers.provider import Provider
from aiserver.router import ProviderCall, Router
from tests.app import FakeProviderClient
from tests.body_strategies import BODIES, Tree, bound, with_model
from tests.fakes import FakeClock


def sent(body: str, upstream_model: str) -> str:
    """The body that a provider gets which knows every model by one name."""
    provider = Provider(name="p", base_url="http://127.0.0.1:1/v1", models={"*": upstream_model})
    protocol = FakeProviderClient(FakeClock())
    router = Router(lambda: [provider], {"openai": protocol}, None, FakeClock())
    (candidate,) = router.candidates("any")
    router.call(candidate, ProviderCall("chat.completions", body.encode()), api_key=None, timeout_s=1)
    ((_, asked),) = protocol.calls
    return asked["body"].decode()


@pytest.mark.parametrize("text", ['"a\\/b"', '"a\\u002fb"', '"\\u0061/b"', '"a/b"'])
def test_a_model_of_the_same_name_passes_byte_for_byte_however_it_is_escaped(text: str) -> None:
    body = '{"messages":[], "model" : %s,"n":1.0}' % text
    assert sent(body, "a/b") == body


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
def test_another_name_is_put_in_at_the_root_and_nowhere_else(body: str, expected: str) -> None:
    assert sent(body, "n") == expected


@given(BODIES, st.sampled_from(["m", "a/b", "語😀", 'quo"te', "other"]))
def test_the_upstream_s_name_is_all_that_changes(body: Tree, name: str) -> None:
    try:
        told = bound(body)
    except InvalidRequest:
        assume(False)
        raise
    assume(isinstance(told.value.get("model"), str))
    assert sent(told.text(), name) == with_model(told, name).text()
