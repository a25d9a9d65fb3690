"""`asyncstore server-users`: who may use a tracking server."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import click

from asyncstore import settings
from asyncstore.cli.common import as_json, print_json, print_table, traceback
from asyncstore.errors import AlreadyExistsError, InvalidParameterError, NotFoundError
from asyncstore.server.users import (
    Kind,
    Role,
    UserEntry,
    edit_users,
    hash_password,
    hash_token,
    new_token,
    read_users,
)

auth_file = click.option(
    "--auth-file",
    metavar="PATH",
    callback=lambda _, __, value: Path(_path(value)),
    help=f"The file. Variable: {settings.ASYNCSTORE_SERVER_AUTH_FILE.name}.",
)


def _path(option: str | None) -> str:
    path = option or settings.ASYNCSTORE_SERVER_AUTH_FILE.get()
    if path is None:
        raise click.UsageError(
            f"say which file: --auth-file, or {settings.ASYNCSTORE_SERVER_AUTH_FILE.name}"
        )
    return path


@click.group(name="server-users")
def server_users() -> None:
    """Add, remove and list the users of a tracking server, which sees changes by itself."""


@server_users.command()
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(["read", "write"]),
    required=True,
    help="Whether they may only read, or everything.",
)
@click.option("--token", is_flag=True, help="For a program: make a token and print it, once.")
@click.option("--replace", is_flag=True, help="Give a user who is there a new secret and role.")
@auth_file
@traceback
def add(name: str, role: Role, token: bool, replace: bool, auth_file: Path) -> None:
    """Add a user, whose password is asked for, or is the first line of standard input.

    MLflow's clients take a password from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD,
    and a token from MLFLOW_TRACKING_TOKEN.
    """
    kind: Kind = "token" if token else "user"
    secret = new_token() if token else _password(name)
    hashed = (hash_token if token else hash_password)(secret.encode())
    edit_users(auth_file, partial(_added, UserEntry(kind, name, role, hashed), replace=replace))
    if token:
        click.echo(secret)
    click.echo(f"{name} may {role}", err=True)


def _password(name: str) -> str:
    if sys.stdin.isatty():
        password = click.prompt(f"Password of {name}", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise InvalidParameterError("the password is empty")
    return str(password)


def _added(entry: UserEntry, entries: list[UserEntry], *, replace: bool) -> list[UserEntry]:
    others = [each for each in entries if each.name != entry.name]
    if len(others) < len(entries) and not replace:
        raise AlreadyExistsError(f"{entry.name} is there already; --replace gives a new secret")
    return [*others, entry]


@server_users.command()
@click.argument("name")
@auth_file
@traceback
def remove(name: str, auth_file: Path) -> None:
    """Remove a user or a token; a running server refuses it within a second or two."""
    edit_users(auth_file, partial(_removed, name))
    click.echo(f"{name} is removed", err=True)


def _removed(name: str, entries: list[UserEntry]) -> list[UserEntry]:
    others = [each for each in entries if each.name != name]
    if len(others) == len(entries):
        raise NotFoundError(f"there is no user {name}")
    return others


@server_users.command(name="list")
@auth_file
@as_json
@traceback
def list_users(auth_file: Path, as_json: bool) -> None:
    """List users, without their secrets."""
    entries = read_users(auth_file)
    if as_json:
        print_json([{"kind": e.kind, "name": e.name, "role": e.role} for e in entries])
    else:
        print_table(("KIND", "NAME", "ROLE"), [(e.kind, e.name, e.role) for e in entries])
