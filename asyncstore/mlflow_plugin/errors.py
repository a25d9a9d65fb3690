"""asyncstore's errors as MLflow's."""

from __future__ import annotations

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ErrorCode

from asyncstore.errors import AsyncStoreError

__all__ = ["translated"]


def translated(error: AsyncStoreError) -> MlflowException:
    """The error as MLflow raises it, with the same code and message.

    Args:
        error: What happened. The caller chains it as the cause.
    """
    return MlflowException(error.message, error_code=ErrorCode.Value(error.error_code))
