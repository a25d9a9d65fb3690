"""The store over HTTP, put together from its parts."""

from __future__ import annotations

from asyncstore.metadata.prompts import PromptsAsModels
from asyncstore.metadata.rest.assessments import RestAssessments
from asyncstore.metadata.rest.deletion import RestDeletion
from asyncstore.metadata.rest.experiments import RestExperiments
from asyncstore.metadata.rest.inputs import RestInputs
from asyncstore.metadata.rest.logged import RestLogged
from asyncstore.metadata.rest.logged_models import RestLoggedModels
from asyncstore.metadata.rest.metric_history import RestMetricHistory
from asyncstore.metadata.rest.model_versions import RestModelVersions
from asyncstore.metadata.rest.registered_models import RestRegisteredModels
from asyncstore.metadata.rest.runs import RestRuns
from asyncstore.metadata.rest.traces import RestTraces

__all__ = ["RestStore"]


class RestStore(
    RestExperiments,
    RestRuns,
    RestLogged,
    RestInputs,
    RestMetricHistory,
    RestLoggedModels,
    RestTraces,
    RestAssessments,
    RestRegisteredModels,
    RestModelVersions,
    PromptsAsModels,
    RestDeletion,
):
    """The metadata of an MLflow tracking server; opened by `MetadataStore.open`.

    What the server checks, cuts and refuses depends on its version. A question that it does not
    know raises UnsupportedError. Nothing is asked before the first call.
    """
