"""STATE_DIR keeps accepted jobs, however the process ends, and only its owner can read it."""

import resource
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.template import REPOSITORY
from tests.flow.commands import DevServer, have_exited, open_descendants, run_dev, start, wait_until_ready

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
JOBS = 12


def readable_by_others(folder: Path) -> list[str]:
    return [str(path) for path in [folder, *folder.rglob("*")] if stat.S_IMODE(path.lstat().st_mode) & 0o077]


def ministack_pid(process: subprocess.Popen[str]) -> int:
    for task in Path(f"/proc/{process.pid}/task").glob("*/children"):
        for pid in map(int, task.read_text().split()):
            if b"durable.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
    raise AssertionError("MiniStack does not run")


def error_line(server: DevServer) -> str:
    assert server.process.stderr is not None
    return server.process.stderr.readline()


def wait_until_completed(server: DevServer, key: str, ref_id: str) -> None:
    with server.http(key) as http:
        response = http.get("/api/WaitForOpenAiChat", params={"refId": ref_id})
        assert response.status_code == 200, response.text
        record = response.json()["result"]
        assert record["state"] == "Completed", record


def test_after_sigkill_no_process_remains_and_accepted_jobs_complete(tmp_path: Path) -> None:
    state = tmp_path / "with spaces and ünicode"
    with start(STATE_DIR=str(state)) as process:
        first = wait_until_ready(process)
        for number in range(JOBS):  # every second body is an S3 object
            assert first.queue(f"job-{number}", "x" * (40_000 if number % 2 else 3)).status_code == 200
        handles = open_descendants(first)
        process.kill()
        assert have_exited(handles)
    first.card_file.unlink()
    with run_dev(STATE_DIR=str(state)) as second, second.http(first.card["api_key"]) as http:
        jobs = [http.get("/api/GetOpenAiChat", params={"refId": f"job-{n}"}).json()["result"] for n in range(JOBS)]
        runnable = [job["refId"] for job in jobs if job["state"] != "Started"]  # a killed worker's lease lasts minutes
        assert runnable
        for ref_id in runnable:
            wait_until_completed(second, first.card["api_key"], ref_id)
    assert (state / "journal").stat().st_size == 0  # a clean shutdown writes everything to the snapshot
    assert f"job-{JOBS - 1}" in (state / "services" / "dynamodb.json").read_text()


def test_killed_start_leaves_a_usable_state_dir(tmp_path: Path) -> None:
    with start(STATE_DIR=str(tmp_path / "state")) as process:
        while not list((tmp_path / "state").glob("s3/*/*")):
            time.sleep(0.05)
        process.kill()
    with run_dev(STATE_DIR=str(tmp_path / "state")) as server:
        assert server.queue("after").status_code == 200


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of an earlier version, readable by everybody."""
    folder = tmp_path_factory.mktemp("kept") / "state"
    (folder / "s3").mkdir(parents=True)
    (folder / "s3" / "from-before").write_text("a body")
    for path in (folder, folder / "s3", folder / "s3" / "from-before"):
        path.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def server(state: Path) -> Iterator[DevServer]:
    shell = ("sh", "-c", 'umask 000; exec "$@"', "sh")
    with run_dev(*shell, stderr=subprocess.PIPE, STATE_DIR=str(state)) as dev_server:
        yield dev_server


def test_state_and_logs_are_readable_by_their_owner_only(server: DevServer, state: Path) -> None:
    assert server.queue("private", "x" * 40_000).status_code == 200
    wait_until_completed(server, server.card["api_key"], "private")
    assert readable_by_others(state) == []
    assert readable_by_others(server.log_dir) == []


def test_full_disk_rejects_requests_and_reports_it_until_there_is_space(server: DevServer) -> None:
    pid = ministack_pid(server.process)
    assert server.queue("before").status_code == 200
    wait_until_completed(server, server.card["api_key"], "before")
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    try:
        assert server.queue("refused").status_code >= 500
        assert server.queue("refused, with an S3 object", "x" * 40_000).status_code >= 500
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert "cannot write the state" in error_line(server)
    assert server.queue("after", "x" * 40_000).status_code == 200
    wait_until_completed(server, server.card["api_key"], "after")
    assert "writing the state succeeds again" in error_line(server)


def test_second_run_on_one_state_dir_is_rejected_without_harm(server: DevServer, state: Path) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "local.dev"],
        env={"PORT": "0", "STATE_DIR": str(state), "PATH": "/usr/bin:/bin"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (second.returncode, second.stdout) == (1, "")
    assert second.stderr == (
        f"dev: STATE_DIR {state} is in use by another run (pid {server.process.pid}); "
        "stop that run, or set another folder\n"
    )
    assert server.queue("unharmed").status_code == 200
