"""Plugins that can be imported, and then do not do what they should."""

from __future__ import annotations


class Wrong:
    @staticmethod
    async def open_backend(uri: str, storage_options: object) -> str:
        return "not a backend"


class Needy:
    @staticmethod
    async def open_backend(uri: str, storage_options: object) -> object:
        import no_such_library  # type: ignore[import-not-found]  # that is the point

        return no_such_library


class Sad:
    def in_context(self) -> bool:
        raise ValueError("the provider is sad")

    get_name = in_context
