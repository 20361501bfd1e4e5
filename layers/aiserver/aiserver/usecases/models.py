"""Which models there are: what the providers name, and what those that take any model have said they have."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiserver.providers.provider import ANY_MODEL, ModelListing, Provider
from aiserver.router import Router


@dataclass(frozen=True)
class Model:
    """A model by its public name, and the provider that is asked first for it."""

    name: str
    provider: str


class Models:
    def __init__(self, router: Router, listings: Callable[[], Mapping[str, ModelListing]]) -> None:
        self._router = router
        self._listings = listings
        self._known: tuple[list[Provider], list[Model]] | None = None

    def all(self) -> list[Model]:
        """Every model that would be routed, by name; of a provider that takes any, those it last listed.

        Worked out once for each time that the router has read its providers.
        """
        providers = self._router.providers()
        if self._known is None or self._known[0] is not providers:
            self._known = (providers, [self.one(name) for name in sorted(self._names(providers))])
        return self._known[1]

    def one(self, name: str) -> Model:
        """Raises: NotFound, for a model that nobody serves."""
        return Model(name, self._router.candidates(name)[0].provider.name)

    def _names(self, providers: list[Provider]) -> set[str]:
        listings = self._listings()
        named = {name for provider in providers for name in provider.models if name != ANY_MODEL}
        passing = [listings[p.name].ids for p in providers if p.accepts_any_model and p.name in listings]
        return named.union(*passing)
