"""Methods of MLflow's stores that asyncstore runs."""

from __future__ import annotations

import functools
import inspect
import os
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from asyncstore.errors import AsyncStoreError
from asyncstore.metadata import MetadataStore
from asyncstore.mlflow_plugin import convert
from asyncstore.mlflow_plugin.errors import translated
from asyncstore.mlflow_plugin.portal import get_portal

__all__ = ["OnAsyncStore", "on_asyncstore"]

C = TypeVar("C", bound="type[OnAsyncStore]")

# Of no meaning in a SQL store, MLflow's own included.
IGNORED = ("tracking_uri",)
# Of which MLflow's SQL stores take no notice, and asyncstore does.
MLFLOWS = {
    ("create_registered_model", "deployment_job_id"),
    ("update_registered_model", "deployment_job_id"),
    ("search_traces", "model_id"),
}


class OnAsyncStore:
    """The half of a store that asyncstore runs, in front of MLflow's own class."""

    #: MLflow's names of the methods that asyncstore runs, and asyncstore's names of them.
    on_asyncstore: Mapping[str, str] = {}
    db_uri: str
    #: Of MLflow's half.
    engine: Any
    asyncstore_artifact_location: str | None = None

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        _all.add(self)

    def run_on_asyncstore(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Call a method of asyncstore's store and wait for it.

        Args:
            name: The method.
            arguments: asyncstore's arguments, by name.

        Returns:
            What it returns.

        Raises:
            MlflowException: With MLflow's error code.
        """
        portal = get_portal()
        client = portal.client(self.db_uri, self.asyncstore_artifact_location)

        async def call() -> Any:
            return await getattr(await client.get_metadata_store(), name)(**arguments)

        try:
            return portal.call(call)
        except AsyncStoreError as error:
            raise translated(error) from error


def on_asyncstore(names: Iterable[str] | Mapping[str, str]) -> Callable[[C], C]:
    """Have asyncstore run methods of a class, where its MLflow has them.

    Args:
        names: The methods; with asyncstore's names of them, where those are others.

    Returns:
        A decorator of a class that derives from `OnAsyncStore` and from a store of MLflow.
    """
    renamed = dict(names) if isinstance(names, Mapping) else {name: name for name in names}

    def decorate(kind: C) -> C:
        found = {name: ours for name, ours in renamed.items() if hasattr(kind, name)}
        for name, ours in found.items():
            setattr(kind, name, _method(getattr(kind, name), ours))
        kind.on_asyncstore = {**kind.on_asyncstore, **found}
        return kind

    return decorate


def _method(mlflows: Callable[..., Any], name: str) -> Callable[..., Any]:
    signature = inspect.signature(mlflows)
    known = inspect.signature(getattr(MetadataStore, name)).parameters

    @functools.wraps(mlflows)
    def method(self: OnAsyncStore, *args: Any, **kwargs: Any) -> Any:
        given = signature.bind(self, *args, **kwargs).arguments
        given.pop("self")
        converted = convert.arguments(given)
        unknown = [key for key in converted if key not in known or (name, key) in MLFLOWS]
        for key in unknown:
            if converted.pop(key) is not None and key not in IGNORED:
                # What asyncstore cannot do is not lost: the database is MLflow's.
                return mlflows(self, *args, **kwargs)
        if get_portal().closed:
            # Functions that the interpreter calls when it exits, such as MLflow's own that ends the
            # active run.
            return mlflows(self, *args, **kwargs)
        found = convert.result(self.run_on_asyncstore(name, converted))
        # Of MLflow's searches this one alone has its token beside the list.
        return (list(found), found.token) if name == "search_traces" else found

    return method


_all: weakref.WeakSet[OnAsyncStore] = weakref.WeakSet()


def _after_fork() -> None:
    # The connections that MLflow's half has open are the parent's; SQLAlchemy says to do this.
    for store in _all:
        store.engine.dispose(close=False)


os.register_at_fork(after_in_child=_after_fork)
