"""A provider as its operator configures it in providers.yaml."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from aiserver.providers.catalogue import BY_TYPE, CATALOGUE, GENERIC, Operation, Preset, ProviderType, QueueName

ANY_MODEL = "*"


def _blank_if_null(value: object) -> object:
    return "" if value is None else value


def _check_host(url: str) -> str:
    """Raises: ValueError, where no connection could ever be made."""
    try:
        parts = urlsplit(url)
        is_host = bool(parts.port != 0 and parts.hostname and parts.hostname.encode("idna"))
    except ValueError:  # UnicodeError is one
        is_host = False
    if not is_host:
        raise ValueError("no such host or port can be")
    return url


def _catalogue_preset(preset: str, type: str) -> Preset:
    return CATALOGUE.get(preset) or BY_TYPE.get(type, GENERIC)


class Provider(BaseModel):
    """One upstream. `models` maps public names to the upstream's own; an empty one is the same name, `*` any model.

    `preset` names a row of the catalogue, whose words stand where nothing else is said. An unknown one means nothing:
    a function may be older, or younger, than what an operator applied. (`providers apply` refuses it.)
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
    operations: Annotated[tuple[Operation, ...], Field(min_length=1)] = GENERIC.operations
    concurrency: Annotated[int, Field(ge=1, le=500)] | None = None
    priority: int = 0
    enabled: bool = True
    timeout_s: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] = 600
    models: Annotated[dict[str, Annotated[str, BeforeValidator(_blank_if_null)]], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        said = cast(Mapping[str, Any], given)
        row = _catalogue_preset(str(said.get("preset")), str(said.get("type")))
        filled = {**row.defaults, **said}
        if row is not GENERIC and "base_url" not in filled:
            named = f"preset {said['preset']}" if said.get("preset") else f"type {said['type']}"
            raise ValueError(f"{named} needs a base_url, as in {row.base_url}")
        if row is not GENERIC and filled["type"] != row.type:
            raise ValueError(f"preset {said['preset']} is of type {row.type}")
        return filled

    @model_validator(mode="after")
    def _check_key_source(self) -> Self:
        if self.api_key_var and self.api_key_secret:
            raise ValueError("give api_key_var or api_key_secret, not both")
        return self

    @model_validator(mode="after")
    def _check_type(self) -> Self:
        row = self.catalogue_preset
        if self.type != "openai" and not set(self.operations) <= set(row.operations):
            raise ValueError(f"operations of type {self.type} are {', '.join(row.operations)}")
        if self.base_url.rstrip("/").endswith(row.rejected_url_suffixes or "\n"):
            raise ValueError(f"base_url of type {self.type} is as {row.base_url}")
        return self

    @property
    def accepts_any_model(self) -> bool:
        """Whether any name reaches it as it is: then what it lists is what may be asked for."""
        return self.models.get(ANY_MODEL) == ""

    @property
    def catalogue_preset(self) -> Preset:
        """What the catalogue knows of it."""
        return _catalogue_preset(self.preset, self.type)

    def match_model(self, model: str) -> tuple[str, int] | None:
        """The upstream's name for `model` and how well it matches: 0 by name, 1 by tag, 2 as any; None when not.

        Names are Ollama's: one without a tag means `:latest`, else the tag that is configured.
        """
        if model in self.models and model != ANY_MODEL:
            return self.models[model] or model, 0
        base, _, tag = model.partition(":")
        tagged = [name for name in self.models if name.partition(":")[0] == base and name != ANY_MODEL]
        wanted = [f"{base}:latest", *tagged] if not tag else [base] if tag == "latest" else []
        for name in wanted:
            if name in self.models and name != ANY_MODEL:
                return self.models[name] or name, 1
        return (self.models[ANY_MODEL] or model, 2) if ANY_MODEL in self.models else None


@dataclass(frozen=True)
class ModelListing:
    """The ids of the models that a provider said it has, and when it did, in milliseconds."""

    ids: tuple[str, ...]
    listed_at: int
