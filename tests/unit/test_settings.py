"""A function whose environment is incomplete or wrong says which variable it is, before its first request."""

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


def complete(model: type[Settings]) -> dict[str, str]:
    """An environment in which nothing is missing."""
    texts = {int: "7", bool: "false"}
    return {name.upper(): texts.get(one.annotation, "x") for name, one in model.model_fields.items()}  # pyright: ignore


def named(problem: pytest.ExceptionInfo[ValidationError]) -> list[str]:
    """The variables an error names, each also in the words a person reads."""
    found = [str(one["loc"][0]) for one in problem.value.errors()]
    assert all(name in str(problem.value) for name in found)
    return found


@pytest.mark.parametrize("model", MODELS)
def test_a_complete_environment_is_read_whatever_else_is_in_it(model: type[Settings]) -> None:
    assert model.read(complete(model) | {"PATH": "/bin", "AWS_REGION": "us-east-1"})


@pytest.mark.parametrize(("model", "field"), FIELDS)
def test_a_missing_variable_is_an_error_that_names_it(model: type[Settings], field: str) -> None:
    environment = complete(model)
    del environment[field.upper()]
    with pytest.raises(ValidationError) as problem:
        model.read(environment)
    assert named(problem) == [field.upper()]


@pytest.mark.parametrize(("model", "field"), TYPED)
@pytest.mark.parametrize("wrong", ["", "many", "1.5"])
def test_a_wrong_variable_is_an_error_that_names_it(wrong: str, model: type[Settings], field: str) -> None:
    with pytest.raises(ValidationError) as problem:
        model.read(complete(model) | {field.upper(): wrong})
    assert named(problem) == [field.upper()]


def test_origins_and_key_ids_are_lists_separated_by_commas() -> None:
    chat, intake = complete(settings.ChatSettings), complete(settings.IntakeSettings)
    for text, listed in (("", []), (" , ", []), ("https://a.io", ["https://a.io"]), ("a, b ,c", ["a", "b", "c"])):
        assert settings.ChatSettings.read(chat | {"CORS_ORIGINS": text}).cors_origins == listed
        assert settings.IntakeSettings.read(intake | {"INTAKE_KEY_IDS": text}).intake_key_ids == listed


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False)])
def test_callbacks_are_unsafe_only_where_the_template_says_true(text: str, value: bool) -> None:
    environment = complete(settings.QueueSettings) | {"UNSAFE_CALLBACKS": text}
    assert settings.QueueSettings.read(environment).unsafe_callbacks is value


@pytest.mark.parametrize(("build", "model"), BUILDERS)
def test_nothing_is_built_from_an_empty_environment(
    build: Callable[[], Any], model: type[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    for field in model.model_fields:
        monkeypatch.delenv(field.upper(), raising=False)
    bootstrap.reset()
    with pytest.raises(ValidationError) as problem:
        build()
    assert set(named(problem)) == {field.upper() for field in model.model_fields}


def test_a_container_on_lambda_fails_at_its_start_and_anywhere_else_when_first_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bootstrap.reset()
    bootstrap.preload(bootstrap.finished)
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "finished")
    with pytest.raises(ValidationError):
        bootstrap.preload(bootstrap.finished)
