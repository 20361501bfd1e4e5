"""A provider as it is stored for other versions of the gateway, and the settings of its models in requests."""

import json
from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from aiserver.aws.config import DynamoConfig
from aiserver.operations import OPERATIONS
from aiserver.providers import provider as provider_module
from aiserver.providers.adapters.openai.audio import build_form
from aiserver.providers.adapters.openai.request import build_json
from aiserver.providers.call import Upstream
from aiserver.providers.catalogue import CATALOGUE, GENERIC, Preset
from aiserver.providers.provider import CALLER_MEMBERS, Provider
from aiserver.routing.selection import select_candidates
from aiserver.wire.forms import Part, encode_form
from tests import stack as template
from tests.examples import examples
from tests.moto_stack import UNSUPPORTED_PROPERTIES, client, mock_aws
from tests.providers.audio_calls import TRANSCRIPTIONS, audio_call, speech_call
from tests.providers.calls import make_call

OLDER_OPERATIONS = ("chat.completions", "embeddings", "responses")
CONFIG = {"name": "p", "base_url": "http://127.0.0.1:1/v1", "models": {"m": ""}}
FILE = Part("file", b"RIFF", "a.wav", "audio/wav")
AUDIO = ["audio.transcriptions", "audio.speech"]
# Settings of every JSON type, and the text fields that they become in a form.
FORM_TEXTS: list[tuple[Any, list[str]]] = [
    ("alloy", ["alloy"]),
    ("", [""]),
    ("語", ["語"]),
    (True, ["true"]),
    (False, ["false"]),
    (0, ["0"]),
    (1.25, ["1.25"]),
    (None, []),
    ([], []),
    (["word", "segment"], ["word", "segment"]),
    ([1, True, "a"], ["1", "true", "a"]),
    ([{"a": 1}, {"b": None}], ['{"a": 1}', '{"b": null}']),
    ({"type": "server_vad", "silence_ms": 5}, ['{"type": "server_vad", "silence_ms": 5}']),
    ({}, ["{}"]),
]


def provider(**config: Any) -> Provider:
    return Provider.model_validate({**CONFIG, **config})


def preset_config(name: str) -> dict[str, Any]:
    return {"preset": name, "base_url": "http://127.0.0.1:1"}


def error_of(**config: Any) -> str:
    """The text of the validation error; any other exception fails the test."""
    with pytest.raises(ValidationError) as raised:
        provider(**config)
    return str(raised.value)


# --- the stored text ---


@pytest.mark.parametrize("name", CATALOGUE)
def test_stored_provider_has_no_operations_equal_to_those_of_its_preset(name: str) -> None:
    stored = provider(**preset_config(name))
    fields = json.loads(stored.to_json())
    assert fields.keys() == Provider.model_fields.keys() - {"operations"}
    assert stored.operations == CATALOGUE[name].operations
    assert Provider.model_validate_json(stored.to_json()) == stored


def test_stored_provider_without_a_preset_has_no_default_operations() -> None:
    for config in ({}, {"operations": GENERIC.operations}, {"preset": "of-a-newer-version"}):
        stored = provider(**config)
        assert "operations" not in json.loads(stored.to_json())
        assert Provider.model_validate_json(stored.to_json()) == stored


@pytest.mark.parametrize(
    "config",
    [
        {"operations": ["chat.completions"]},
        {"operations": ["embeddings", "chat.completions"]},
        {"operations": ["audio.speech"]},
        {"preset": "openai", "operations": ["chat.completions", "embeddings"]},
        {"preset": "openai", "operations": ["chat.completions", "audio.speech"]},
        {"type": "anthropic", "base_url": "http://127.0.0.1:1", "operations": ["chat.completions"]},
    ],
)
def test_operations_that_differ_from_the_preset_are_stored(config: dict[str, Any]) -> None:
    stored = provider(**config)
    is_default = stored.operations == stored.catalogue_preset.operations
    fields = json.loads(stored.to_json())
    assert fields.get("operations") == (None if is_default else config["operations"])
    assert Provider.model_validate_json(stored.to_json()) == stored


@pytest.fixture
def older_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """The validator knows only the operations of texts, and presets with them."""

    def older_preset(preset: Preset) -> Preset:
        return replace(preset, operations=tuple(name for name in preset.operations if name in OLDER_OPERATIONS))

    presets = {name: older for name, preset in CATALOGUE.items() if (older := older_preset(preset)).operations}
    known = {name: operation for name, operation in OPERATIONS.items() if name in OLDER_OPERATIONS}
    monkeypatch.setattr(provider_module, "OPERATIONS", MappingProxyType(known))
    monkeypatch.setattr(provider_module, "CATALOGUE", MappingProxyType(presets))


# As a newer version stores them, with the operations of its own presets.
STORED_TEXTS = {name: provider(**preset_config(name)).to_json() for name in CATALOGUE} | {"": provider().to_json()}
SETTINGS = {"models": {"m": {"model": "x", "voice": "alloy"}}}


@pytest.mark.usefixtures("older_version")
@pytest.mark.parametrize("name", STORED_TEXTS)
def test_older_version_reads_the_stored_text(name: str) -> None:
    """Issue: an older version skipped every provider whose preset had got audio operations."""
    stored = Provider.model_validate_json(STORED_TEXTS[name], extra="ignore")
    assert (stored.name, stored.preset, stored.models) == ("p", name, {"m": ""})
    assert set(stored.operations) <= set(OLDER_OPERATIONS)


class OlderModels(BaseModel):
    """The models as a version without settings reads them."""

    models: dict[str, str]


@pytest.mark.parametrize("config", [SETTINGS, {"preset": "openai", **SETTINGS}])
def test_version_without_settings_of_models_reads_the_stored_text(config: dict[str, Any]) -> None:
    stored = OlderModels.model_validate_json(provider(**config).to_json(), extra="ignore")
    assert stored.models == {"m": "x"}


@pytest.mark.usefixtures("older_version")
def test_older_version_rejects_explicit_operations_that_it_does_not_know() -> None:
    with pytest.raises(ValidationError, match="unknown operation"):
        provider(operations=["audio.speech"])


@pytest.fixture
def config() -> Iterator[DynamoConfig]:
    with mock_aws():
        properties = {k: v for k, v in template.properties("ConfigTable").items() if k not in UNSUPPORTED_PROPERTIES}
        client("dynamodb").create_table(**properties | {"TableName": "config"})
        yield DynamoConfig("config", client("dynamodb"))


def test_config_table_contains_the_text_without_default_operations(config: DynamoConfig) -> None:
    default = provider(preset="openai", **SETTINGS)
    explicit = provider(name="q", preset="openai", operations=AUDIO)
    assert all(config.replace_provider(stored.name, None, stored) for stored in (default, explicit))
    texts = config.provider_texts()
    assert "operations" not in json.loads(texts["p"])
    assert json.loads(texts["q"])["operations"] == AUDIO
    assert config.providers() == [default, explicit]
    assert config.replace_provider("p", texts["p"], provider())


# --- settings of models: configuration ---


def test_object_of_a_model_is_its_name_and_settings() -> None:
    models = {
        "narrator": {"model": "tts-1", "voice": "alloy", "speed": 1.25},
        "same-name": {"voice": "echo"},
        "only-name": {"model": "x"},
        "null-name": {"model": None, "language": "en"},
        "empty": {},
        "text": "y",
        "null": None,
    }
    stored = provider(models=models)
    assert stored.models == {
        "narrator": "tts-1",
        "same-name": "",
        "only-name": "x",
        "null-name": "",
        "empty": "",
        "text": "y",
        "null": "",
    }
    assert stored.model_settings == {
        "narrator": {"voice": "alloy", "speed": 1.25},
        "same-name": {"voice": "echo"},
        "null-name": {"language": "en"},
    }
    assert models["narrator"] == {"model": "tts-1", "voice": "alloy", "speed": 1.25}


@pytest.mark.parametrize("value", [value for value, _ in FORM_TEXTS], ids=json.dumps)
def test_settings_are_stored_and_read_unchanged(value: Any) -> None:
    stored = provider(preset="openai", models={"m": {"model": "x", "setting": value}, "n": ""})
    read = Provider.model_validate_json(stored.to_json())
    assert (read, read.models, read.model_settings) == (stored, {"m": "x", "n": ""}, {"m": {"setting": value}})
    assert Provider.model_validate_json(read.to_json()).to_json() == stored.to_json()


def test_settings_beside_models_are_kept_and_replaced_by_objects() -> None:
    stored = provider(
        models={"m": {"voice": "echo"}, "n": ""},
        model_settings={"m": {"voice": "alloy", "speed": 2}, "n": {"language": "en"}},
    )
    assert stored.model_settings == {"m": {"voice": "echo"}, "n": {"language": "en"}}


def test_settings_apply_to_every_spelling_of_the_model() -> None:
    stored = provider(models={"llama3:8b": {"speed": 1}, "m:latest": {"speed": 2}, "*": {"speed": 3}})
    speeds = {name: stored.settings_of(name) for name in ("llama3:8b", "llama3", "m", "m:latest", "other", "*")}
    assert [speed["speed"] for speed in speeds.values()] == [1, 1, 2, 2, 3, 3]
    assert provider(models={"m": {"speed": 2}, "n": ""}).settings_of("n") == {}


@pytest.mark.parametrize("member", sorted(CALLER_MEMBERS))
def test_members_of_every_request_cannot_be_set(member: str) -> None:
    message = f"model m: {member} cannot be set for a model"
    assert message in error_of(model_settings={"m": {member: "x", "voice": "alloy"}})
    if member != "model":
        assert message in error_of(models={"m": {member: "x", "voice": "alloy"}})


def test_members_that_cannot_be_set_are_all_named() -> None:
    assert "model m: input, stream cannot be set" in error_of(models={"m": {"stream": True, "input": "x", "speed": 1}})


def test_settings_of_unknown_models_are_rejected() -> None:
    message = error_of(model_settings={"x": {"speed": 1}, "m": {"speed": 1}, "a": {}})
    assert "model_settings contains a, x, which 'models' does not contain" in message
    assert "which 'models' does not contain" in error_of(models={"m:8b": ""}, model_settings={"m": {"speed": 1}})


@pytest.mark.parametrize("value", ["x", 1, True, 1.5, ["m"], [], "", 0, False, None, [["m", {}]]], ids=repr)
def test_settings_that_are_no_mapping_are_a_validation_error(value: Any) -> None:
    assert "model_settings\n  Input should be a valid dictionary" in error_of(model_settings=value)


@pytest.mark.parametrize("value", ["x", 1, True, ["m"]], ids=repr)
def test_settings_that_are_no_mapping_are_an_error_beside_objects(value: Any) -> None:
    message = error_of(models={"m": {"voice": "alloy"}}, model_settings=value)
    assert "model_settings\n  Input should be a valid dictionary" in message


@pytest.mark.parametrize("value", ["x", 1, True, ["speed"], None], ids=repr)
def test_settings_of_a_model_that_are_no_mapping_are_a_validation_error(value: Any) -> None:
    assert "model_settings.m\n  Input should be a valid dictionary" in error_of(model_settings={"m": value})


@pytest.mark.parametrize("value", [1, True, ["x"], {"model": 1}, {"model": ["x"]}, {"model": {"a": 1}}], ids=repr)
def test_model_that_is_no_name_is_a_validation_error(value: Any) -> None:
    assert "models.m\n  Input should be a valid string" in error_of(models={"m": value})


# --- settings of models: requests ---


def upstream(settings: dict[str, Any]) -> Upstream:
    """The upstream of model `m`, as a call selects it."""
    configured = provider(operations=[*GENERIC.operations, *AUDIO], models={"m": {"model": "x", **settings}})
    (candidate,) = select_candidates([configured], "m")
    return candidate.upstream("key")


def form_parts(settings: dict[str, Any], *parts: Part) -> list[Part]:
    """The parts of a form as sent to the provider, for these parts of the caller."""
    body, content_type = encode_form([Part("model", b"m"), *parts])
    return build_form(upstream(settings), audio_call(TRANSCRIPTIONS, body, content_type))


@pytest.mark.parametrize(("value", "texts"), FORM_TEXTS, ids=lambda value: json.dumps(value))
def test_setting_in_a_form_is_repeated_parts_json_or_nothing(value: Any, texts: list[str]) -> None:
    parts = form_parts({"timestamp_granularities[]": value}, FILE)
    added = [Part("timestamp_granularities[]", text.encode()) for text in texts]
    assert parts == [Part("model", b"x"), FILE, *added]


@pytest.mark.parametrize("value", [value for value, _ in FORM_TEXTS], ids=json.dumps)
def test_setting_in_a_json_request_is_its_json(value: Any) -> None:
    body = build_json(upstream({"setting": value}), speech_call())
    assert body == b'{"model":"x", "input":"Hello", "voice":"a","setting":%b}' % json.dumps(value).encode()


def test_settings_of_a_model_are_added_to_chats() -> None:
    body = build_json(upstream({"temperature": 0, "stop": ["a"]}), make_call())
    messages = b'"messages":[{"role":"user","content":"hi"}]'
    assert body == b'{"model":"x",%b,"temperature":0,"stop":["a"]}' % messages


@pytest.mark.parametrize("text", ["", "de", "en"])
@pytest.mark.parametrize("value", ["fr", ["fr", "it"], None, {"a": 1}])
def test_setting_does_not_replace_a_field_of_the_caller(text: str, value: Any) -> None:
    field = Part("language", text.encode())
    assert form_parts({"language": value}, field, FILE) == [Part("model", b"x"), field, FILE]
    repeated = [field, Part("language", b"other")]
    assert form_parts({"language": value}, *repeated, FILE) == [Part("model", b"x"), *repeated, FILE]


@pytest.mark.parametrize(
    "member", ['"voice":"a"', '"voice":null', '"voice" : ""', '"voice":{"id":"b"}', '"voi\\u0063e":"a"', '"voice":[]']
)
def test_setting_does_not_replace_a_member_of_the_caller(member: str) -> None:
    body = f'{{"model":"x","input":"Hello",{member}}}'.encode()
    assert build_json(upstream({"voice": "alloy"}), speech_call(body)) == body
    with_speed = build_json(upstream({"voice": "alloy", "speed": 2}), speech_call(body))
    assert with_speed == body[:-1] + b',"speed":2}'


NAMES = st.sampled_from(["language", "prompt", "temperature", "include[]", "Language", "x", "x-y", "1x", "__slots__"])
JSON_VALUES = st.sampled_from([value for value, _ in FORM_TEXTS])


@settings(max_examples=examples(200))
@given(st.lists(st.builds(Part, NAMES, st.binary(max_size=9)), max_size=4), st.dictionaries(NAMES, JSON_VALUES))
def test_settings_only_add_parts_that_the_caller_does_not_send(parts: list[Part], model_settings: Any) -> None:
    sent = form_parts(model_settings, *parts, FILE)
    caller_parts = [Part("model", b"x"), *parts, FILE]
    assert sent[: len(caller_parts)] == caller_parts
    names = {part.name for part in caller_parts}
    texts = {json.dumps(value): value_texts for value, value_texts in FORM_TEXTS}
    assert sent[len(caller_parts) :] == [
        Part(name, text.encode())
        for name, value in model_settings.items()
        if name not in names
        for text in texts[json.dumps(value)]
    ]


@settings(max_examples=examples(200))
@given(st.dictionaries(NAMES, JSON_VALUES), st.dictionaries(NAMES, JSON_VALUES))
def test_settings_only_add_members_that_the_caller_does_not_send(members: Any, model_settings: Any) -> None:
    caller_members = {"model": "x", "input": "Hello", **members}
    body = json.dumps(caller_members).encode()
    sent = build_json(upstream(model_settings), speech_call(body))
    assert json.loads(sent) == {**model_settings, **caller_members}
    assert sent.startswith(body[:-1])


@pytest.mark.parametrize("stored", [[], "", 0, False, 5, "x", [1]])
def test_model_settings_that_are_no_object_are_an_error(stored: Any) -> None:
    for models in ({"m": ""}, {"m": {"model": "x", "voice": "a"}}):
        with pytest.raises(ValidationError, match="model_settings"):
            Provider.model_validate(
                {"name": "p", "base_url": "http://x/v1", "models": models, "model_settings": stored}
            )


@pytest.mark.parametrize("value", [float("inf"), float("nan"), [float("-inf")], {"a": float("nan")}])
def test_setting_that_is_no_json_is_an_error(value: Any) -> None:
    models = {"m": {"model": "x", "speed": value}}
    with pytest.raises(ValidationError):
        Provider.model_validate({"name": "p", "base_url": "http://x/v1", "models": models})
