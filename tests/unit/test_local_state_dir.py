"""The files of STATE_DIR: a journal that preserves written entries, a folder locked by one run and private."""

import stat
from pathlib import Path

import pytest

from local.durable import changes_configuration
from local.journal import Journal
from local.state_dir import StateDirFailed, lock_folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_only_flushed_entries_are_read_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.add({"n": 1})
    journal.flush()
    journal.add({"n": 2})
    assert list(Journal(tmp_path / "journal").entries()) == [{"n": 1}]


@pytest.mark.parametrize("truncated_line", [b'{"n": 2', b'{"n": 2}', b'\x00\x00{"n": 2}\n'])
def test_truncated_line_ends_the_entries(tmp_path: Path, truncated_line: bytes) -> None:
    (tmp_path / "journal").write_bytes(b'{"n": 1}\n' + truncated_line)
    assert list(Journal(tmp_path / "journal").entries()) == [{"n": 1}]


def test_entries_are_retried_by_the_next_flush_after_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.symlink_to("/dev/full")
    journal = Journal(path)
    journal.add({"n": 1})
    for _ in range(2):
        with pytest.raises(OSError, match="No space left on device"):
            journal.flush()


def test_journal_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    (tmp_path / "old").touch(0o644)
    for name in ("new", "old"):
        Journal(tmp_path / name)
        assert mode(tmp_path / name) == 0o600


def test_folder_is_locked_while_in_use(tmp_path: Path) -> None:
    with lock_folder(tmp_path), pytest.raises(StateDirFailed, match="in use by another run"), lock_folder(tmp_path):
        pass
    with lock_folder(tmp_path):
        pass


def test_state_folder_becomes_private_without_following_links(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch(0o644)
    folder = tmp_path / "state"
    (folder / "s3").mkdir(parents=True)
    (folder / "s3" / "link").symlink_to(elsewhere)
    folder.chmod(0o755)
    with lock_folder(folder):
        assert (mode(folder), mode(folder / "s3"), mode(elsewhere)) == (0o700, 0o700, 0o644)


def test_folder_with_other_files_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch(0o644)
    (tmp_path / "services").mkdir(0o755)
    tmp_path.chmod(0o755)
    with lock_folder(tmp_path):
        assert (mode(tmp_path), mode(tmp_path / "notes.txt")) == (0o755, 0o644)
        assert mode(tmp_path / "services") == 0o700


def test_file_is_rejected_as_state_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateDirFailed, match="is not a folder"), lock_folder(tmp_path / "file"):
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
def test_requests_that_change_more_than_the_journal_need_a_snapshot(
    method: str, path: str, target: str, body: bytes, changes: bool
) -> None:
    service = b"s3" if path.startswith("/bucket") else b"other"
    authorization = b"AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/" + service + b"/aws4_request"
    headers = [(b"authorization", authorization), *([(b"x-amz-target", target.encode())] if target else [])]
    assert changes_configuration({"method": method, "path": path, "headers": headers}, body) is changes
