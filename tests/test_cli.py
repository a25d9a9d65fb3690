"""The command line, as a person and as a shell script meet it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

import asyncstore
from tests.command_line import Cli
from tests.servers.radosgw import RadosGateway
from tests.terminal import Terminal

pytestmark = pytest.mark.usefixtures("in_tmp_path")


@pytest.fixture
def runs() -> list[str]:
    """Three runs in the default database; the ids."""

    async def log() -> list[str]:
        ids = []
        async with asyncstore.Client() as client:
            for number in range(3):
                async with client.start_run(
                    experiment_name=f"experiment {number % 2}", run_name=f"run {number}"
                ) as run:
                    await run.log_metrics({"loss": number / 10, "bad": math.inf})
                    await run.log_metric("worse", math.nan)
                    await run.log_param("number", number)
                    await run.log_text("text", "notes/a.txt")
                    ids.append(run.run_id)
        return ids

    return anyio.run(log)


class TestExperiments:
    def test_list(self, cli: Cli, runs: list[str]) -> None:
        status, out, _ = cli("experiments", "list")
        assert status == 0
        assert {line.split("\t")[1] for line in out.splitlines()} == {
            "Default",
            "experiment 0",
            "experiment 1",
        }

    def test_search_in_order(self, cli: Cli, runs: list[str]) -> None:
        _, out, _ = cli(
            *("experiments", "search", "--filter", "name LIKE 'experiment%'"),
            *("--order-by", "name DESC", "--json"),
        )
        assert [found["name"] for found in json.loads(out)] == ["experiment 1", "experiment 0"]

    def test_show_by_name_and_by_id(self, cli: Cli, runs: list[str]) -> None:
        _, out, _ = cli("experiments", "show", "experiment 1", "--json")
        by_name = json.loads(out)
        _, out, _ = cli("experiments", "show", by_name["experiment_id"])
        assert "NAME\texperiment 1" in out

    @pytest.mark.parametrize("name", ["nobody", "98765"])
    def test_one_that_does_not_exist(self, cli: Cli, runs: list[str], name: str) -> None:
        status, out, err = cli("experiments", "show", name)
        assert (status, out) == (1, "")
        assert err.startswith("Error: RESOURCE_DOES_NOT_EXIST: ")
        assert err.count("\n") == 1


class TestRuns:
    def test_list_all_and_those_of_an_experiment(self, cli: Cli, runs: list[str]) -> None:
        _, out, _ = cli("runs", "list", "--json")
        assert {run["info"]["run_id"] for run in json.loads(out)} == set(runs)
        _, out, _ = cli("runs", "list", "--experiment", "experiment 0")
        lines = [line.split("\t") for line in out.splitlines()]
        assert {line[0] for line in lines} == {runs[0], runs[2]}
        assert "loss=0.2" in out

    def test_search(self, cli: Cli, runs: list[str]) -> None:
        _, out, _ = cli(
            *("runs", "search", "--filter", "metrics.loss > 0.05 AND params.number != '7'"),
            *("--order-by", "metrics.loss DESC", "--json"),
        )
        assert [run["info"]["run_id"] for run in json.loads(out)] == [runs[2], runs[1]]

    def test_a_page_says_that_there_is_more(self, cli: Cli, runs: list[str]) -> None:
        _, out, err = cli("runs", "list", "--max-results", "2")
        assert len(out.splitlines()) == 2
        assert "--max-results" in err

    def test_show(self, cli: Cli, runs: list[str]) -> None:
        _, out, _ = cli("runs", "show", runs[1])
        assert "param number\t1" in out
        assert "status\tFINISHED" in out
        assert "metric worse\tnan" in out

    def test_json_is_json_though_metrics_need_not_be_numbers(
        self, cli: Cli, runs: list[str]
    ) -> None:
        def refuse(word: str) -> None:
            pytest.fail(f"{word} is not JSON")

        _, out, _ = cli("runs", "show", runs[1], "--json")
        metrics = json.loads(out, parse_constant=refuse)["data"]["metrics"]
        assert metrics["worse"] == "NaN"
        assert metrics["loss"] == 0.1

    def test_a_wrong_filter(self, cli: Cli, runs: list[str]) -> None:
        status, _, err = cli("runs", "search", "--filter", "metrics.loss <<< 1")
        assert status == 1
        assert err.startswith("Error: INVALID_PARAMETER_VALUE: ")

    def test_another_database(self, cli: Cli, runs: list[str], tmp_path: Path) -> None:
        uri = f"sqlite:///{tmp_path}/other.db"
        _, out, _ = cli("runs", "list", "--tracking-uri", uri)
        assert out == ""
        status, _, err = cli("runs", "list", "--tracking-uri", "nothing://at:all@x")
        assert status == 1
        assert "INVALID_PARAMETER_VALUE" in err
        assert "all" not in err


class TestArtifacts:
    def test_of_a_run(self, cli: Cli, runs: list[str], tmp_path: Path) -> None:
        (tmp_path / "one.txt").write_text("one")
        status, out, _ = cli("artifacts", "upload", "one.txt", "-r", runs[0], "-a", "notes")
        assert (status, out) == (0, "3 B uploaded\n")
        _, out, _ = cli("artifacts", "list", "-r", runs[0])
        assert out == "notes/\t\n"
        _, out, _ = cli("artifacts", "list", "notes", "-r", runs[0], "--json")
        assert [file["path"] for file in json.loads(out)] == ["notes/a.txt", "notes/one.txt"]
        _, out, _ = cli("artifacts", "download", "notes/one.txt", "-r", runs[0], "-d", "here")
        assert out == f"{tmp_path}/here/notes/one.txt\n"
        assert Path(out.strip()).read_text() == "one"

    def test_of_a_uri_needs_no_database(self, cli: Cli, tmp_path: Path) -> None:
        for name in ("a", "b/c", "b/d e"):
            path = tmp_path / "tree" / name
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text(name)
        _, out, _ = cli("artifacts", "upload", "tree", "-u", "store", "--json")
        assert json.loads(out) == {"artifact_uri": "store", "artifact_path": None, "bytes": 9}
        _, out, _ = cli("artifacts", "list", "--recursive", "-u", tmp_path / "store")
        assert out == "a\t1 B\nb/c\t3 B\nb/d e\t5 B\n"
        _, out, _ = cli("artifacts", "download", "-u", "store", "--json", "-d", "here")
        assert json.loads(out) == {"local_path": f"{tmp_path}/here", "bytes": 9}
        assert (tmp_path / "here" / "b" / "d e").read_text() == "b/d e"
        assert not (tmp_path / "mlflow.db").exists()

    def test_which_artifacts_must_be_said_once(self, cli: Cli) -> None:
        for words in ((), ("-r", "x", "-u", "y")):
            status, _, err = cli("artifacts", "list", *words)
            assert status == 2
            assert "give either --run-id or --artifact-uri" in err
            assert "Usage:" in err

    @pytest.mark.parametrize(
        ("words", "code"),
        [
            (("upload", "nothing", "-u", "store"), "RESOURCE_DOES_NOT_EXIST"),
            (("download", "nothing", "-u", "store", "-d", "x"), "RESOURCE_DOES_NOT_EXIST"),
            (("list", "../x", "-u", "store"), "INVALID_PARAMETER_VALUE"),
            (("list", "-u", "nobody://knows"), "INVALID_PARAMETER_VALUE"),
        ],
    )
    def test_an_error_is_one_line(self, cli: Cli, words: tuple[str, ...], code: str) -> None:
        status, out, err = cli("artifacts", *words)
        assert (status, out) == (1, "")
        assert err.startswith(f"Error: {code}: ")
        assert err.count("\n") == 1

    def test_a_control_character_in_a_name_does_not_reach_the_terminal(
        self, cli: Cli, tmp_path: Path
    ) -> None:
        (tmp_path / "store").mkdir()
        (tmp_path / "store" / "bell\x07\x1b[31m").write_text("")
        _, out, _ = cli("artifacts", "list", "-u", "store")
        assert out == "bell??[31m\t0 B\n"


class TestErrors:
    def test_a_traceback_when_asked(self, cli: Cli) -> None:
        words = ("artifacts", "list", "-u", "nobody://knows")
        assert "Traceback" not in cli(*words)[2]
        err = cli(*words, "--traceback")[2]
        assert "Traceback" in err
        assert err.splitlines()[-1].startswith("Error: INVALID_PARAMETER_VALUE")

    def test_one_that_nobody_foresaw(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        async def broken(*_: object) -> None:
            raise ZeroDivisionError("two\nlines")

        monkeypatch.setattr("asyncstore.client.Client.get_run", broken)
        status, _, err = cli("runs", "show", "x")
        assert status == 1
        assert err == (
            "Error: INTERNAL_ERROR: ZeroDivisionError: two lines (--traceback says where)\n"
        )

    @pytest.mark.parametrize("words", [(), ("runs",), ("no-such",), ("runs", "show")])
    def test_wrong_usage(self, cli: Cli, words: tuple[str, ...]) -> None:
        status, _, err = cli(*words)
        assert status == 2
        assert "Usage: asyncstore" in err

    def test_a_value_that_is_not_acceptable(self, cli: Cli) -> None:
        status, _, err = cli("runs", "list", "--max-results", "0")
        assert status == 2
        assert "--max-results" in err

    def test_a_wrong_variable(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE", "many")
        status, _, err = cli("artifacts", "list", "-u", "store")
        assert status == 1
        assert "MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE" in err

    def test_a_missing_extra(self, tmp_path: Path) -> None:
        hide = "import sys; sys.modules['click'] = None; "
        code = f"{hide}from asyncstore.cli import main; sys.exit(main(['--version']))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr == (
            "Error: the command line needs the library click; run: pip install 'asyncstore[cli]'\n"
        )

    def test_help_and_version(self, cli: Cli) -> None:
        status, out, _ = cli("--version")
        assert (status, out) == (0, f"asyncstore, version {asyncstore.__version__}\n")
        status, out, _ = cli("runs", "search", "--help")
        assert status == 0
        assert "--order-by" in out

    def test_a_reader_that_has_enough(self, tmp_path: Path) -> None:
        for number in range(5000):
            (tmp_path / f"a file with a long name {number:050}").touch()
        shell = f"{sys.executable} -m asyncstore.cli artifacts list -u {tmp_path} | head -n 1"
        done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True)
        assert done.stdout.startswith("a file")
        assert done.stderr == ""


class TestTerminal:
    def test_a_progress_bar(self, tmp_path: Path) -> None:
        (tmp_path / "big").write_bytes(bytes(3_000_000))
        with Terminal("artifacts", "upload", "big", "-u", "store") as command:
            command.read_until(None)
            assert command.process.wait() == 0
        assert "2.9/2.9 MiB" in command.seen

    def test_no_progress_bar_with_mlflows_variable(self, tmp_path: Path) -> None:
        (tmp_path / "big").write_bytes(bytes(3_000_000))
        env = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
        with Terminal("artifacts", "upload", "big", "-u", "store", env=env) as command:
            command.read_until(None)
        assert command.seen.strip() == "2.9 MiB uploaded"

    def test_a_table_has_a_header(self, runs: list[str]) -> None:
        with Terminal("runs", "list") as command:
            command.read_until(None)
        assert "RUN ID" in command.seen

    def test_ctrl_c_aborts_an_upload_and_leaves_nothing(
        self,
        tmp_path: Path,
        radosgw: RadosGateway,
        s3_bucket: str,
        s3_env: dict[str, str],
    ) -> None:
        with (tmp_path / "big").open("wb") as file:
            file.truncate(900 * 1024**2)
        with Terminal("artifacts", "upload", "big", "-u", f"s3://{s3_bucket}/x") as command:
            command.read_until(r"[1-9][\d.]*/900\.0 MiB")
            command.interrupt()
            command.read_until(None)
            assert command.process.wait() == 130
        assert "Interrupted" in command.seen
        assert "Traceback" not in command.seen
        assert radosgw.open_multipart_uploads(s3_bucket) == []
        assert radosgw.keys(s3_bucket) == []
