"""A function with a missing or invalid environment variable fails before its first request with an error naming it."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from aiserver import bootstrap, settings
from aiserver.settings import Settings

MODELS = [
    settings.ChatSettings,
    settings.QueueSettings,
    settings.IntakeSettings,
    settings.WorkerSettings,
    settings.StatusSettings,
    settings.EventsSettings,
    settings.FinishedSettings,
    settings.ReplySettings,
    settings.SweepSettings,
]
BUILDERS = [
    (bootstrap.chat, settings.ChatSettings),
    (bootstrap.queue, settings.QueueSettings),
    (bootstrap.intake, settings.IntakeSettings),
    (bootstrap.worker, settings.WorkerSettings),
    (bootstrap.status, settings.StatusSettings),
    (bootstrap.events, settings.EventsSettings),
    (bootstrap.finished, settings.FinishedSettings),
    (bootstrap.reply, settings.ReplySettings),
    (bootstrap.sweep, settings.SweepSettings),
]
FIELDS = [(model, field) for model in MODELS for field in model.model_fields]
TYPED = [(model, field) for model, field in FIELDS if model.model_fields[field].annotation in (int, bool)]


def complete_environment(model: type[Settings]) -> dict[str, str]:
    """Return an environment with all variables of the model."""
    texts = {int: "7", bool: "false"}
    return {name.upper(): texts.get(field.annotation, "x") for name, field in model.model_fields.items()}  # pyright: ignore


def variables_in(error: pytest.ExceptionInfo[ValidationError]) -> list[str]:
    """Return the variables that the error names; its message must contain each."""
    names = [str(detail["loc"][0]) for detail in error.value.errors()]
    assert all(name in str(error.value) for name in names)
    return names


@pytest.mark.parametrize("model", MODELS)
def test_complete_environment_is_read_and_other_variables_are_ignored(model: type[Settings]) -> None:
    assert model.read(complete_environment(model) | {"PATH": "/bin", "AWS_REGION": "us-east-1"})


@pytest.mark.parametrize(("model", "field"), FIELDS)
def test_missing_variable_is_an_error_naming_it(model: type[Settings], field: str) -> None:
    environment = complete_environment(model)
    del environment[field.upper()]
    with pytest.raises(ValidationError) as error:
        model.read(environment)
    assert variables_in(error) == [field.upper()]


@pytest.mark.parametrize(("model", "field"), TYPED)
@pytest.mark.parametrize("text", ["", "many", "1.5"])
def test_invalid_variable_is_an_error_naming_it(text: str, model: type[Settings], field: str) -> None:
    with pytest.raises(ValidationError) as error:
        model.read(complete_environment(model) | {field.upper(): text})
    assert variables_in(error) == [field.upper()]


def test_origins_and_key_ids_are_comma_separated_lists() -> None:
    chat, intake = complete_environment(settings.ChatSettings), complete_environment(settings.IntakeSettings)
    for text, expected in (("", []), (" , ", []), ("https://a.io", ["https://a.io"]), ("a, b ,c", ["a", "b", "c"])):
        assert settings.ChatSettings.read(chat | {"CORS_ORIGINS": text}).cors_origins == expected
        assert settings.IntakeSettings.read(intake | {"INTAKE_KEY_IDS": text}).intake_key_ids == expected


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False)])
def test_unsafe_callbacks_is_true_only_for_true(text: str, value: bool) -> None:
    environment = complete_environment(settings.QueueSettings) | {"UNSAFE_CALLBACKS": text}
    assert settings.QueueSettings.read(environment).unsafe_callbacks is value


@pytest.mark.parametrize(("build", "model"), BUILDERS)
def test_empty_environment_is_an_error_naming_all_variables(
    build: Callable[[], Any], model: type[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    for field in model.model_fields:
        monkeypatch.delenv(field.upper(), raising=False)
    bootstrap.reset_for_tests()
    with pytest.raises(ValidationError) as error:
        build()
    assert set(variables_in(error)) == {field.upper() for field in model.model_fields}


def test_preload_fails_during_init_on_lambda_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bootstrap.reset_for_tests()
    bootstrap.preload(bootstrap.finished)
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "finished")
    with pytest.raises(ValidationError):
        bootstrap.preload(bootstrap.finished)
