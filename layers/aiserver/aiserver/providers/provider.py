"""A provider as its operator configures it in providers.yaml."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

ANY_MODEL = "*"


def _same_name(value: object) -> object:
    return "" if value is None else value


class Provider(BaseModel):
    """One upstream. `models` maps public names to the upstream's own; an empty one is the same name, `*` any model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    type: Literal["openai"] = "openai"
    base_url: Annotated[str, Field(pattern=r"^https?://[^/?#@]+(/[^?#]*)?$")]
    api_key_var: str | None = None
    api_key_secret: Annotated[str, Field(pattern=r"^/[A-Za-z0-9_./-]+$")] | None = None
    queue: Literal["hosted", "gpu"] = "hosted"
    concurrency: Annotated[int, Field(ge=1, le=500)] | None = None
    priority: int = 0
    enabled: bool = True
    timeout_s: Annotated[float, Field(gt=0)] = 600
    models: Annotated[dict[str, Annotated[str, BeforeValidator(_same_name)]], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.api_key_var and self.api_key_secret:
            raise ValueError("give api_key_var or api_key_secret, not both")
        return self

    def serves(self, model: str) -> tuple[str, int] | None:
        """The upstream's name for `model` and how well it matches: 0 by name, 1 by tag, 2 as any; None when not.

        Names are Ollama's: one without a tag means `:latest`, else the tag that is configured.
        """
        if model in self.models and model != ANY_MODEL:
            return self.models[model] or model, 0
        base, _, tag = model.partition(":")
        tagged = [name for name in self.models if name.partition(":")[0] == base and name != ANY_MODEL]
        wanted = [f"{base}:latest", *tagged] if not tag else [base] if tag == "latest" else []
        for name in wanted:
            if name in self.models:
                return self.models[name] or name, 1
        return (self.models[ANY_MODEL] or model, 2) if ANY_MODEL in self.models else None
