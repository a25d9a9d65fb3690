"""The interface to assessments of traces."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from asyncstore.entities import Assessment, Expectation, Feedback

__all__ = ["AssessmentMethods"]


class AssessmentMethods(ABC):
    """The methods of a store that concern assessments of traces."""

    @abstractmethod
    async def create_assessment(self, assessment: Assessment) -> Assessment:
        """Record what somebody says of a trace.

        Args:
            assessment: A `Feedback` or an `Expectation` with its trace; the one that it overrides,
                if any, is not valid any more.

        Returns:
            The assessment with its id and times.

        Raises:
            NotFoundError: The trace, or the assessment that it overrides, does not exist.
            InvalidParameterError: It is neither of the two, or names no trace.
        """

    @abstractmethod
    async def get_assessment(self, trace_id: str, assessment_id: str) -> Assessment:
        """An assessment.

        Args:
            trace_id: The trace.
            assessment_id: The assessment.

        Raises:
            NotFoundError: There is none.
        """

    @abstractmethod
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
        """Change an assessment; who made it and what it is about stay.

        Args:
            trace_id: The trace.
            assessment_id: The assessment.
            name: The new name; None keeps it.
            expectation: Its value becomes that of an expectation; None keeps it.
            feedback: Its value and error become those of a feedback; None keeps them.
            rationale: The new reason; None keeps it.
            metadata: Texts to add or change; None for none.

        Returns:
            The changed assessment.

        Raises:
            NotFoundError: There is none.
            InvalidParameterError: It is a feedback and an expectation is given, or the reverse.
        """

    @abstractmethod
    async def delete_assessment(self, trace_id: str, assessment_id: str) -> None:
        """Delete an assessment; the one that it replaced is valid again. None is no error.

        Args:
            trace_id: The trace.
            assessment_id: The assessment.
        """
