from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncstore import settings
from asyncstore.errors import InvalidParameterError
from asyncstore.settings import POOL_CLASSES, SETTINGS

# For each way to read a variable: texts and what they mean, and texts that are refused.
CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "text": ({"x": "x", " spaces around ": "spaces around", "a=b": "a=b"}, []),
    "true, false, 1 or 0": (
        {"true": True, "TRUE": True, "1": True, "False": False, "0": False},
        ["yes", "2", "on", "-1"],
    ),
    "a whole number of bytes above 0": (
        {"1": 1, "5242880": 5242880, " 7 ": 7},
        ["0", "-1", "5MiB", "1.5", "1e6"],
    ),
    "a whole number, 0 or more": ({"0": 0, "12": 12}, ["-1", "many", "1.0"]),
    "a whole number of seconds; -1 means no limit": ({"0": 0, "-1": -1, "60": 60}, ["-2", "1m"]),
    "a whole number; -1 means no limit": ({"-1": -1, "7": 7}, ["-2", "x"]),
    "a whole number": ({"2048": 2048, "-3": -3}, ["x", "1.5"]),
    "a number of bytes that is a multiple of 262144 (256 KiB)": (
        {"262144": 262144, "1048576": 1048576},
        ["0", "1", "262145", "-262144", "x"],
    ),
    'a JSON object, such as {"ServerSideEncryption": "aws:kms"}': (
        {"{}": {}, '{"A": {"B": [1]}}': {"A": {"B": [1]}}},
        ["[]", '"x"', "{", "A=B", "null", "1"],
    ),
    'a JSON object of texts, such as {"X-Team": "vision"}': (
        {"{}": {}, '{"X-Team": "vision", "a": ""}': {"X-Team": "vision", "a": ""}},
        ["[]", "x", '{"X": 1}', '{"X Y": "a"}', '{"X:": "a"}', '{"": "a"}', '{"X": "a\\r\\nB: c"}'],
    ),
    "Hadoop properties, name=value,name=value": (
        {"a.b=c": {"a.b": "c"}, "a=1, b=": {"a": "1", "b": ""}},
        ["a.b", "=c", "a=1,,b=2"],
    ),
    "schemes with commas between them, such as s3,gs": (
        {"s3": ("s3",), " S3, gs ,": ("s3", "gs"), "asyncstore+s3": ("asyncstore+s3",)},
        ["s3://", "s3 gs", "3s", "s3;gs"],
    ),
    "a whole number from 1 to 1000": ({"1": 1, "1000": 1000}, ["0", "1001", "x"]),
    "a whole number of seconds from 1 to 604800 (7 days)": (
        {"1": 1, "604800": 604800},
        ["0", "604801", "5m"],
    ),
    "a whole number above 0": ({"1": 1, "40": 40}, ["0", "-1", "1.5", "x"]),
    "a whole number of seconds above 0; -1 means no limit": (
        {"1": 1, "60": 60, "-1": None},
        ["0", "-2", "1m"],
    ),
    "a whole number from 0 to 10": ({"0": 0, "10": 10}, ["-1", "11", "x"]),
    "a whole number from 0 to 120": ({"0": 0, "120": 120}, ["-1", "121", "0.5"]),
    "a number, 0 or more": ({"0": 0.0, "1.5": 1.5}, ["-0.1", "inf", "nan", "x"]),
    "a whole number of seconds above 0": ({"1": 1, "120": 120}, ["0", "-1", "1.5"]),
    "texts with commas between them": (
        {"a.example.com": ("a.example.com",), " a , *.b,": ("a", "*.b")},
        [","],
    ),
    "SAMEORIGIN, DENY or NONE": ({"DENY": "DENY", "none": "NONE"}, ["ALLOW", "DENY\r\nX: y"]),
    f"one of {', '.join(POOL_CLASSES)}": (
        {"NullPool": "NullPool", "QueuePool": "QueuePool"},
        ["nullpool", "SwimmingPool"],
    ),
    "auto, path or virtual": (
        {"auto": "auto", "path": "path", "virtual": "virtual"},
        ["Virtual", "host"],
    ),
}
SECRETS = {
    "DATABRICKS_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_ACCESS_KEY",
    "MLFLOW_OSS_KEY_SECRET",
    "ARTIFACTORY_AUTH_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "ASYNCSTORE_AUTH_COMMAND",
    "ASYNCSTORE_REQUEST_HEADERS",
}
EVERY = pytest.mark.parametrize("name", SETTINGS)


@EVERY
def test_every_variable_reads_what_it_accepts(name: str) -> None:
    setting = SETTINGS[name]
    accepted, _ = CASES[setting.accepts]
    for text, value in accepted.items():
        read = setting.get({name: text})
        assert (read, type(read)) == (value, type(value))


@EVERY
def test_every_variable_refuses_the_rest_by_its_name(name: str) -> None:
    setting = SETTINGS[name]
    for text in CASES[setting.accepts][1]:
        with pytest.raises(InvalidParameterError) as refusal:
            setting.get({name: text})
        message = str(refusal.value)
        assert message.startswith(f"{name}: ")
        assert message.endswith(f"it takes {setting.accepts}")
        assert (repr(text) in message) is not setting.secret


@EVERY
def test_unset_and_empty_mean_the_default(name: str) -> None:
    setting = SETTINGS[name]
    for environ in ({}, {name: ""}, {name: "  "}, {f"{name}_": "x"}):
        assert setting.get(environ) == setting.default


@EVERY
def test_every_variable_says_what_it_is(name: str) -> None:
    setting = SETTINGS[name]
    assert setting.name == name
    assert setting.meaning.endswith(".")
    assert setting.applies_to
    assert setting.secret is (name in SECRETS)
    assert setting is getattr(settings, name.lstrip("_"))


def test_a_secret_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(text: str) -> str:
        raise ValueError(text)

    for name in SECRETS:
        setting = SETTINGS[name]
        guarded = settings.Setting(
            **{**vars(setting), "parse": refuse},
        )
        with pytest.raises(InvalidParameterError) as refusal:
            guarded.get({name: "S3CR3T"})
        assert "S3CR3T" not in str(refusal.value)
        assert "S3CR3T" not in repr(setting)


def test_the_process_environment_is_read_at_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.MLFLOW_S3_IGNORE_TLS.get() is False
    monkeypatch.setenv("MLFLOW_S3_IGNORE_TLS", "true")
    assert settings.MLFLOW_S3_IGNORE_TLS.get() is True


@given(st.integers(-(10**20), 10**20))
def test_any_number_is_read_or_refused(number: int) -> None:
    setting = settings.MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE
    if number > 0:
        assert setting.get({setting.name: str(number)}) == number
    else:
        with pytest.raises(InvalidParameterError):
            setting.get({setting.name: str(number)})


def test_nobody_else_reads_the_environment() -> None:
    package = Path(settings.__file__).parent
    readers = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(word in path.read_text() for word in ("os.environ", "getenv(", "from os import env"))
    }
    assert readers == {"settings.py"}
