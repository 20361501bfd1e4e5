"""The configuration of a provider, as in providers.yaml."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from aiserver.operations import OPERATIONS
from aiserver.providers.catalogue import BY_TYPE, CATALOGUE, GENERIC, Preset, ProviderType, QueueName

ANY_MODEL = "*"


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


OperationName = Annotated[str, AfterValidator(_check_operation)]


def _catalogue_preset(preset: str, type: str) -> Preset:
    return CATALOGUE.get(preset) or BY_TYPE.get(type, GENERIC)


class Provider(BaseModel):
    """One upstream. `models` maps public names to upstream names; an empty value is the same name, `*` any model.

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

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, settings: Any) -> Any:
        if not isinstance(settings, Mapping):
            return settings
        fields = cast(Mapping[str, Any], settings)
        preset = _catalogue_preset(str(fields.get("preset")), str(fields.get("type")))
        merged = {**preset.defaults, **fields}
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
    def _check_type(self) -> Self:
        preset = self.catalogue_preset
        if self.type != "openai" and not set(self.operations) <= set(preset.operations):
            raise ValueError(f"type {self.type} supports only these operations: {', '.join(preset.operations)}")
        if self.base_url.rstrip("/").endswith(preset.rejected_url_suffixes or "\n"):
            raise ValueError(f"invalid 'base_url' for type {self.type}, use for example {preset.base_url}")
        return self

    @property
    def accepts_any_model(self) -> bool:
        """Whether any model name is passed on unchanged: then callers can use all models that the provider lists."""
        return self.models.get(ANY_MODEL) == ""

    @property
    def catalogue_preset(self) -> Preset:
        """The preset of its `preset`, else of its `type`."""
        return _catalogue_preset(self.preset, self.type)

    def match_model(self, model: str) -> tuple[str, int] | None:
        """Return the upstream's name of `model` and the kind of match: 0 by name, 1 by tag, 2 by `*`; None without one.

        Tags are Ollama's: a name without a tag means `:latest`, else the configured tag.
        """
        if model in self.models and model != ANY_MODEL:
            return self.models[model] or model, 0
        base, _, tag = model.partition(":")
        same_base = [name for name in self.models if name.partition(":")[0] == base and name != ANY_MODEL]
        candidates = [f"{base}:latest", *same_base] if not tag else [base] if tag == "latest" else []
        for name in candidates:
            if name in self.models and name != ANY_MODEL:
                return self.models[name] or name, 1
        return (self.models[ANY_MODEL] or model, 2) if ANY_MODEL in self.models else None


@dataclass(frozen=True)
class ModelListing:
    """The model ids that a provider listed, and when, in epoch milliseconds."""

    ids: tuple[str, ...]
    listed_at: int
