"""The configuration of a provider, as in providers.yaml."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from aiserver.operations import OPERATIONS, Operation
from aiserver.providers.catalogue import BY_TYPE, CATALOGUE, GENERIC, Preset, ProviderType, QueueName

ANY_MODEL = "*"
CALLER_MEMBERS = frozenset({"model", "messages", "input", "file", "stream", "stream_format"})  # of every request


def _blank_if_null(value: object) -> object:
    return "" if value is None else value


def _check_host(url: str) -> str:
    """Raises: ValueError, when the host or port is invalid."""
    try:
        parts = urlsplit(url)
        is_host = bool(parts.port != 0 and parts.hostname and parts.hostname.encode("idna"))
    except ValueError:  # UnicodeError is one
        is_host = False
    if not is_host:
        raise ValueError("invalid host or port")
    return url


def _check_operation(name: str) -> str:
    """Raises: ValueError, when there is no such operation."""
    if name not in OPERATIONS:
        raise ValueError(f"unknown operation: use one of {', '.join(OPERATIONS)}")
    return name


def _check_finite(value: Any) -> Any:
    """Raises: ValueError, when the value cannot be sent as JSON."""
    json.dumps(value, allow_nan=False)
    return value


FiniteJson = Annotated[JsonValue, AfterValidator(_check_finite)]
OperationName = Annotated[str, AfterValidator(_check_operation)]


def _catalogue_preset(preset: str, type: str) -> Preset:
    return CATALOGUE.get(preset) or BY_TYPE.get(type, GENERIC)


def _split_model_settings(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields with each object in `models` replaced by its `model`, and its other members in `model_settings`."""
    models: Any = fields.get("models")
    if not isinstance(models, Mapping):
        return dict(fields)
    names, settings = dict(cast(Mapping[str, Any], models)), dict[str, Any]()
    for name, value in names.items():
        if isinstance(value, Mapping):
            members = dict(cast(Mapping[str, Any], value))
            names[name] = members.pop("model", "")
            if members:
                settings[name] = members
    stored: Any = fields.get("model_settings", {})  # as a function reads it; providers.yaml has them in `models`
    if isinstance(stored, Mapping):
        stored = {**cast(Mapping[str, Any], stored), **settings}
    return {**fields, "models": names, "model_settings": stored}


class Provider(BaseModel):
    """One upstream. `models` maps public names to upstream names; an empty value is the same name, `*` any model.

    A value of `models` may also be an object: `model` is the upstream name, and its other members, `model_settings`,
    are members of requests that are used where the caller gives none, such as the voice of speech.

    `preset` names a preset of the catalogue, which sets the defaults. An unknown preset is ignored, since a function
    may be older or newer than the applied configuration. (`providers apply` rejects it.)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    type: ProviderType = GENERIC.type
    preset: str = ""
    base_url: Annotated[str, Field(pattern=r"^https?://[^/?#@{}\s]+(/[^?#{}\s]*)?$"), AfterValidator(_check_host)]
    auth_header: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")] = GENERIC.auth_header
    api_key_var: str | None = None
    api_key_secret: Annotated[str, Field(pattern=r"^/[A-Za-z0-9_./-]+$")] | None = None
    queue: QueueName = GENERIC.queue
    operations: Annotated[tuple[OperationName, ...], Field(min_length=1)] = GENERIC.operations
    concurrency: Annotated[int, Field(ge=1, le=500)] | None = None
    priority: int = 0
    enabled: bool = True
    timeout_s: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] = 600
    models: Annotated[dict[str, Annotated[str, BeforeValidator(_blank_if_null)]], Field(min_length=1)]
    model_settings: dict[str, dict[str, FiniteJson]] = Field(default_factory=dict[str, dict[str, Any]])

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, settings: Any) -> Any:
        if not isinstance(settings, Mapping):
            return settings
        fields = cast(Mapping[str, Any], settings)
        preset = _catalogue_preset(str(fields.get("preset")), str(fields.get("type")))
        merged = {**preset.defaults, **_split_model_settings(fields)}
        if preset is not GENERIC and "base_url" not in merged:
            label = f"preset {fields['preset']}" if fields.get("preset") else f"type {fields['type']}"
            raise ValueError(f"{label} requires 'base_url', for example {preset.base_url}")
        if preset is not GENERIC and merged["type"] != preset.type:
            raise ValueError(f"preset {fields['preset']} requires type {preset.type}")
        return merged

    @model_validator(mode="after")
    def _check_key_source(self) -> Self:
        if self.api_key_var and self.api_key_secret:
            raise ValueError("set either 'api_key_var' or 'api_key_secret', not both")
        return self

    @model_validator(mode="after")
    def _check_model_settings(self) -> Self:
        if unknown := sorted(self.model_settings.keys() - self.models.keys()):
            raise ValueError(f"model_settings contains {', '.join(unknown)}, which 'models' does not contain")
        for name, settings in self.model_settings.items():
            if invalid := sorted(settings.keys() & CALLER_MEMBERS):
                raise ValueError(f"model {name}: {', '.join(invalid)} cannot be set for a model")
        return self

    @model_validator(mode="after")
    def _check_type(self) -> Self:
        preset = self.catalogue_preset
        if self.type != "openai" and self.model_settings:
            raise ValueError(f"type {self.type} does not support settings of a model")
        if self.type != "openai" and not set(self.operations) <= set(preset.operations):
            raise ValueError(f"type {self.type} supports only these operations: {', '.join(preset.operations)}")
        if self.base_url.rstrip("/").endswith(preset.rejected_url_suffixes or "\n"):
            raise ValueError(f"invalid 'base_url' for type {self.type}, use for example {preset.base_url}")
        return self

    def to_json(self) -> str:
        """The provider as it is stored. Operations are stored only if they differ from the preset's: an older version
        rejects operations that it does not know."""
        has_default = self.operations == self.catalogue_preset.operations
        return self.model_dump_json(exclude={"operations"} if has_default else None)

    @property
    def accepts_any_model(self) -> bool:
        """Whether any model name is passed on unchanged: then callers can use all models that the provider lists."""
        return self.models.get(ANY_MODEL) == ""

    @property
    def catalogue_preset(self) -> Preset:
        """The preset of its `preset`, else of its `type`."""
        return _catalogue_preset(self.preset, self.type)

    def path_of(self, operation: Operation) -> str:
        """The path of an operation under `base_url`."""
        return self.catalogue_preset.paths.get(operation.name, operation.path)

    def match_model(self, model: str) -> tuple[str, int] | None:
        """Return the upstream's name of `model` and the kind of match: 0 by name, 1 by tag, 2 by `*`; None without one.

        Tags are Ollama's: a name without a tag means `:latest`, else the configured tag.
        """
        name, rank = self._match_name(model)
        if name is None:
            return None
        return self.models[name] or (model if name == ANY_MODEL else name), rank

    def settings_of(self, model: str) -> Mapping[str, Any]:
        """Members of requests for `model`, used where the caller gives none."""
        return self.model_settings.get(self._match_name(model)[0] or "", {}) if self.model_settings else {}

    def _match_name(self, model: str) -> tuple[str | None, int]:
        if model in self.models and model != ANY_MODEL:
            return model, 0
        base, _, tag = model.partition(":")
        same_base = [name for name in self.models if name.partition(":")[0] == base and name != ANY_MODEL]
        candidates = [f"{base}:latest", *same_base] if not tag else [base] if tag == "latest" else []
        for name in candidates:
            if name in self.models and name != ANY_MODEL:
                return name, 1
        return (ANY_MODEL, 2) if ANY_MODEL in self.models else (None, 2)


@dataclass(frozen=True)
class ModelListing:
    """The model ids that a provider listed, and when, in epoch milliseconds."""

    ids: tuple[str, ...]
    listed_at: int
