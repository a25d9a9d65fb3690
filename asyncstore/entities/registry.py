"""Registered models, their versions and prompts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["ModelVersion", "ModelVersionStage", "Prompt", "PromptVersion", "RegisteredModel"]

ModelVersionStage = Literal["None", "Staging", "Production", "Archived"]


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version of a registered model. Times are milliseconds since the epoch.

    Args:
        name: The registered model.
        version: 1 for the first one.
        creation_timestamp: When it was created.
        last_updated_timestamp: When it was changed last.
        description: Text; None for none.
        user_id: Who created it; None for not known.
        current_stage: Where it stands.
        source: Where it was registered from.
        run_id: The run that made it; None for none.
        status: `READY`, or what stands in the way.
        status_message: Why; None for nothing to say.
        tags: Its tags.
        run_link: A link to the run, elsewhere; None for none.
        aliases: Its aliases.
    """

    name: str
    version: int
    creation_timestamp: int
    last_updated_timestamp: int | None = None
    description: str | None = None
    user_id: str | None = None
    current_stage: ModelVersionStage = "None"
    source: str | None = None
    run_id: str | None = None
    status: str = "READY"
    status_message: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    run_link: str | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A name with versions. Times are milliseconds since the epoch.

    Args:
        name: The name.
        creation_timestamp: When it was created.
        last_updated_timestamp: When it or a version of it was changed last.
        description: Text; None for none.
        latest_versions: The latest version of each stage.
        tags: Its tags.
        aliases: The version of each alias.
    """

    name: str
    creation_timestamp: int
    last_updated_timestamp: int | None = None
    description: str | None = None
    latest_versions: tuple[ModelVersion, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt, which is a registered model with a tag that says so."""

    name: str
    description: str | None = None
    creation_timestamp: int | None = None
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PromptVersion:
    """A version of a prompt.

    Args:
        name: The prompt.
        version: 1 for the first one.
        template: Text with ``{{ variables }}``, or the messages of a chat.
        commit_message: What changed; None for nothing said.
        creation_timestamp: Milliseconds since the epoch.
        tags: Its tags, without those that MLflow keeps the prompt in.
        aliases: Its aliases.
        last_updated_timestamp: Milliseconds since the epoch.
        user_id: Who created it; None for not known.
        response_format: JSON schema of the answer; None for any.
        model_config: Settings of the model; None for none.
    """

    name: str
    version: int
    template: str | list[dict[str, Any]]
    commit_message: str | None = None
    creation_timestamp: int | None = None
    tags: dict[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    last_updated_timestamp: int | None = None
    user_id: str | None = None
    response_format: dict[str, Any] | None = None
    model_config: dict[str, Any] | None = None
