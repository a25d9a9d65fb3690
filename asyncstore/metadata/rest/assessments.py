"""Assessments of traces, over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from asyncstore.entities import Assessment, Expectation, Feedback
from asyncstore.errors import InvalidParameterError
from asyncstore.metadata.rest.base import API_3, RestBase, now_ms, piece
from asyncstore.rest.json_fields import message
from asyncstore.rest.json_traces import assessment_from_json, assessment_to_json

__all__ = ["RestAssessments"]


class RestAssessments(RestBase):
    """The methods of a store that concern assessments of traces."""

    @override
    async def create_assessment(self, assessment: Assessment) -> Assessment:
        if not assessment.trace_id:
            raise InvalidParameterError("an assessment needs the trace_id of its trace")
        if not isinstance(assessment, Feedback | Expectation):
            raise InvalidParameterError(f"{assessment!r:.100} is no Feedback and no Expectation")
        said = assessment_to_json(assessment)
        now = assessment_to_json(
            Feedback(name="", create_time_ms=now_ms(), last_update_time_ms=now_ms())
        )
        # MLflow's server takes a time that is absent for the year 1970.
        for key in ("create_time", "last_update_time"):
            said.setdefault(key, now[key])
        path = _path(assessment.trace_id)
        return _assessment(await self._post(path, {"assessment": said}))

    @override
    async def get_assessment(self, trace_id: str, assessment_id: str) -> Assessment:
        return _assessment(await self._get(_path(trace_id, assessment_id)))

    @override
    async def update_assessment(
        self,
        trace_id: str,
        assessment_id: str,
        name: str | None = None,
        expectation: Expectation | None = None,
        feedback: Feedback | None = None,
        rationale: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Assessment:
        if expectation is not None and feedback is not None:
            raise InvalidParameterError("give expectation or feedback, not both")
        changes: dict[str, Any] = {
            "assessment_name": name,
            "rationale": rationale,
            "metadata": None if metadata is None else dict(metadata),
        }
        for key, new in (("expectation", expectation), ("feedback", feedback)):
            changes[key] = None if new is None else assessment_to_json(new)[key]
        changed = {key: value for key, value in changes.items() if value is not None}
        wanted = {
            "assessment": {"assessment_id": assessment_id, "trace_id": trace_id, **changed},
            # The JSON of a FieldMask, whose names are in camel case.
            "update_mask": ",".join(changed).replace("assessment_name", "assessmentName"),
        }
        return _assessment(await self._ask("PATCH", _path(trace_id, assessment_id), wanted))

    @override
    async def delete_assessment(self, trace_id: str, assessment_id: str) -> None:
        wanted = {"trace_id": trace_id, "assessment_id": assessment_id}
        await self._ask("DELETE", _path(trace_id, assessment_id), wanted)


def _path(trace_id: str, assessment_id: str | None = None) -> str:
    path = f"{API_3}/traces/{piece(trace_id)}/assessments"
    return path if assessment_id is None else f"{path}/{piece(assessment_id)}"


def _assessment(answer: Mapping[str, Any]) -> Assessment:
    return assessment_from_json(message(answer, "assessment"))
