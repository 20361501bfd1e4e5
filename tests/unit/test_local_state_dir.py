"""The files of STATE_DIR: a journal that keeps what was written, a folder for one run and its owner."""

import stat
from pathlib import Path

import pytest

from local.durable import changes_configuration
from local.journal import Journal
from local.state_dir import StateDirFailed, locked


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_flushed_entries_are_read_again_and_others_are_not(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.add({"n": 1})
    journal.flush()
    journal.add({"n": 2})
    assert list(Journal(tmp_path / "journal").entries()) == [{"n": 1}]


@pytest.mark.parametrize("torn", [b'{"n": 2', b'{"n": 2}', b'\x00\x00{"n": 2}\n'])
def test_a_line_that_a_crash_cut_off_ends_the_entries(tmp_path: Path, torn: bytes) -> None:
    (tmp_path / "journal").write_bytes(b'{"n": 1}\n' + torn)
    assert list(Journal(tmp_path / "journal").entries()) == [{"n": 1}]


def test_entries_that_a_full_disk_refused_are_written_by_the_next_flush(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.symlink_to("/dev/full")
    journal = Journal(path)
    journal.add({"n": 1})
    for _ in range(2):
        with pytest.raises(OSError, match="No space left on device"):
            journal.flush()


def test_a_new_journal_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    (tmp_path / "old").touch(0o644)
    for name in ("new", "old"):
        Journal(tmp_path / name)
        assert mode(tmp_path / name) == 0o600


def test_a_folder_is_locked_while_it_is_used(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(StateDirFailed, match="in use by another run"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_folder_of_ours_becomes_private_and_links_are_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch(0o644)
    folder = tmp_path / "state"
    (folder / "s3").mkdir(parents=True)
    (folder / "s3" / "link").symlink_to(elsewhere)
    folder.chmod(0o755)
    with locked(folder):
        assert (mode(folder), mode(folder / "s3"), mode(elsewhere)) == (0o700, 0o700, 0o644)


def test_a_folder_with_files_of_others_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch(0o644)
    (tmp_path / "services").mkdir(0o755)
    tmp_path.chmod(0o755)
    with locked(tmp_path):
        assert (mode(tmp_path), mode(tmp_path / "notes.txt")) == (0o755, 0o644)
        assert mode(tmp_path / "services") == 0o700


def test_a_file_is_no_state_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateDirFailed, match="is not a folder"), locked(tmp_path / "file"):
        pass


@pytest.mark.parametrize(
    ("method", "path", "target", "body", "changes"),
    [
        ("POST", "/", "DynamoDB_20120810.PutItem", b"{}", False),
        ("POST", "/", "DynamoDB_20120810.TransactWriteItems", b"{}", False),
        ("POST", "/", "DynamoDB_20120810.Query", b"{}", False),
        ("POST", "/", "DynamoDB_20120810.ExecuteStatement", b"{}", True),
        ("POST", "/", "DynamoDB_20120810.UpdateTimeToLive", b"{}", True),
        ("POST", "/", "AmazonSQS.SendMessageBatch", b"{}", False),
        ("POST", "/", "AmazonSQS.SetQueueAttributes", b"{}", True),
        ("POST", "/", "AmazonSSM.PutParameter", b"{}", True),
        ("POST", "/", "AmazonSSM.GetParameters", b"{}", False),
        ("POST", "/", "AWSEvents.PutEvents", b"{}", False),
        ("POST", "/", "AWSEvents.PutRule", b"{}", True),
        ("POST", "/", "", b"Version=1&Action=CreateStack&StackName=a", True),
        ("POST", "/", "", b"Action=DescribeStacks", False),
        ("PUT", "/bucket/key", "", b"Action=", False),
        ("PUT", "/bucket", "", b"", True),
        ("GET", "/bucket", "", b"", False),
        ("POST", "/2015-03-31/functions/f/invocations", "", b"{}", False),
        ("PUT", "/2015-03-31/functions/f/configuration", "", b"{}", True),
    ],
)
def test_a_snapshot_follows_what_the_journal_does_not_hold(
    method: str, path: str, target: str, body: bytes, changes: bool
) -> None:
    service = b"s3" if path.startswith("/bucket") else b"other"
    authorization = b"AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/" + service + b"/aws4_request"
    headers = [(b"authorization", authorization), *([(b"x-amz-target", target.encode())] if target else [])]
    assert changes_configuration({"method": method, "path": path, "headers": headers}, body) is changes
