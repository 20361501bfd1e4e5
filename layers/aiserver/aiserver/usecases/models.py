"""The available models: those configured with a provider, and the listings of providers that accept any model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiserver.operations import SPEECH
from aiserver.providers.catalogue import IMAGE_OPERATIONS
from aiserver.providers.provider import ANY_MODEL, ModelListing, Provider
from aiserver.routing.selection import ProviderDirectory


@dataclass(frozen=True)
class Model:
    """A model by its public name, and the provider that is called first for it."""

    name: str
    provider: str


@dataclass(frozen=True)
class Voice:
    """A voice for speech, and the model that speaks with it."""

    id: str
    model: str


class Models:
    def __init__(self, directory: ProviderDirectory, listings: Callable[[], Mapping[str, ModelListing]]) -> None:
        self._directory = directory
        self._listings = listings
        self._cached: tuple[list[Provider], list[Model]] | None = None

    def all(self) -> list[Model]:
        """Every routable model, sorted by name; for a provider that accepts any model, those of its last listing.

        Computed once per read of the providers.
        """
        providers = self._directory.providers()
        if self._cached is None or self._cached[0] is not providers:
            self._cached = (providers, [self.one(name) for name in sorted(self._names(providers))])
        return self._cached[1]

    def one(self, name: str) -> Model:
        """The model with that name. Raises: NotFound, when no provider serves it."""
        return Model(name, self._directory.candidates(name)[0].provider.name)

    def voices(self) -> list[Voice]:
        """The models for speech with a configured voice, sorted by model."""
        voices = {
            Voice(str(settings["voice"]), model)
            for provider in self._directory.providers()
            if SPEECH.name in provider.operations
            for model, settings in provider.model_settings.items()
            if "voice" in settings and model != ANY_MODEL
        }
        return sorted(voices, key=lambda voice: (voice.model, voice.id))

    def image_models(self) -> list[str]:
        """The configured models whose provider generates or edits images, sorted."""
        providers = [
            provider for provider in self._directory.providers() if set(IMAGE_OPERATIONS) & set(provider.operations)
        ]
        return sorted({name for provider in providers for name in provider.models if name != ANY_MODEL})

    def _names(self, providers: list[Provider]) -> set[str]:
        listings = self._listings()
        configured = {name for provider in providers for name in provider.models if name != ANY_MODEL}
        return configured.union(
            *[listings[p.name].ids for p in providers if p.accepts_any_model and p.name in listings]
        )
