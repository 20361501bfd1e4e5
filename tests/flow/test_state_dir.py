"""STATE_DIR keeps what was accepted, however the process ends, and shows it to its owner only."""

import resource
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.template import REPOSITORY
from tests.flow.commands import Dev, dev, have_ended, processes, ready, start

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
JOBS = 12


def others_may(folder: Path) -> list[str]:
    return [str(path) for path in [folder, *folder.rglob("*")] if stat.S_IMODE(path.lstat().st_mode) & 0o077]


def ministack_pid(process: subprocess.Popen[str]) -> int:
    for task in Path(f"/proc/{process.pid}/task").glob("*/children"):
        for pid in map(int, task.read_text().split()):
            if b"durable.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
    raise AssertionError("MiniStack does not run")


def error_line(running: Dev) -> str:
    assert running.process.stderr is not None
    return running.process.stderr.readline()


def completed(running: Dev, key: str, ref_id: str) -> None:
    with running.http(key) as http:
        answer = http.get("/api/WaitForOpenAiChat", params={"refId": ref_id})
        assert answer.status_code == 200, answer.text
        record = answer.json()["result"]
        assert record["state"] == "Completed", record


def test_after_sigkill_no_process_is_left_and_accepted_jobs_complete(tmp_path: Path) -> None:
    state = tmp_path / "with spaces and ünicode"
    with start(STATE_DIR=str(state)) as process:
        first = ready(process)
        for number in range(JOBS):  # every second body is an object of its own
            assert first.queue(f"job-{number}", "x" * (40_000 if number % 2 else 3)).status_code == 200
        started = processes(first)
        process.kill()
        assert have_ended(started)
    first.card_file.unlink()
    with dev(STATE_DIR=str(state)) as second, second.http(first.card["api_key"]) as http:
        known = [http.get("/api/GetOpenAiChat", params={"refId": f"job-{n}"}).json()["result"] for n in range(JOBS)]
        free = [job["refId"] for job in known if job["state"] != "Started"]  # a killed worker's lease lasts minutes
        assert free
        for ref_id in free:
            completed(second, first.card["api_key"], ref_id)
    assert (state / "journal").stat().st_size == 0  # an orderly end leaves all of it in the snapshot
    assert f"job-{JOBS - 1}" in (state / "services" / "dynamodb.json").read_text()


def test_a_start_that_was_killed_leaves_a_state_dir_that_starts(tmp_path: Path) -> None:
    with start(STATE_DIR=str(tmp_path / "state")) as process:
        while not list((tmp_path / "state").glob("s3/*/*")):
            time.sleep(0.05)
        process.kill()
    with dev(STATE_DIR=str(tmp_path / "state")) as running:
        assert running.queue("after").status_code == 200


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as earlier versions left it, readable by everybody."""
    folder = tmp_path_factory.mktemp("kept") / "state"
    (folder / "s3").mkdir(parents=True)
    (folder / "s3" / "from-before").write_text("a body")
    for path in (folder, folder / "s3", folder / "s3" / "from-before"):
        path.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def running(state: Path) -> Iterator[Dev]:
    shell = ("sh", "-c", 'umask 000; exec "$@"', "sh")
    with dev(*shell, stderr=subprocess.PIPE, STATE_DIR=str(state)) as started:
        yield started


def test_state_and_logs_are_readable_by_their_owner_only(running: Dev, state: Path) -> None:
    assert running.queue("private", "x" * 40_000).status_code == 200
    completed(running, running.card["api_key"], "private")
    assert others_may(state) == []
    assert others_may(running.log_dir) == []


def test_a_full_disk_refuses_requests_and_says_so_until_there_is_room(running: Dev) -> None:
    pid = ministack_pid(running.process)
    assert running.queue("before").status_code == 200
    completed(running, running.card["api_key"], "before")
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    try:
        assert running.queue("refused").status_code >= 500
        assert running.queue("refused, with a body of its own", "x" * 40_000).status_code >= 500
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert "the state cannot be written" in error_line(running)
    assert running.queue("after", "x" * 40_000).status_code == 200
    completed(running, running.card["api_key"], "after")
    assert "the state is written again" in error_line(running)


def test_a_second_run_on_one_state_dir_is_refused_and_harms_nothing(running: Dev, state: Path) -> None:
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
        f"dev: STATE_DIR {state} is in use by another run (pid {running.process.pid}); "
        "end that, or name another folder\n"
    )
    assert running.queue("unharmed").status_code == 200
