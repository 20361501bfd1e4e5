"""Runs MiniStack so that no acknowledged change is lost when the process is killed or the disk is full.

MiniStack (1.4.21) writes its state only at an orderly exit, and logs write failures. Here each response waits until
the changes before it are on disk: items and messages in a journal, objects in their files, all other state in a
snapshot of all services. While a write fails, every response is an error.

Started as a file (`python -P durable.py`), so that `local` is not importable in the handlers MiniStack runs.
Environment: MiniStack's variables, and AISERVER_MESSAGES_FD, the file descriptor for messages to the user.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, cast

sys.path.append(str(Path(__file__).resolve().parents[1]))

from local.journal import Journal

CHECKPOINT_PATH = "/_aiserver/checkpoint"
MAX_JOURNAL_BYTES = 64 * 1024 * 1024  # a longer journal is replaced by a snapshot
READS = ("Get", "List", "Describe", "Query", "Scan", "BatchGet", "TransactGet", "PutEvents", "Assume", "Lookup")
ITEM_WRITES = ("PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "TransactWriteItems")
MESSAGE_WRITES = ("SendMessage", "ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility")
ERROR_HEADERS = [(b"content-type", b"application/x-amz-json-1.0"), (b"x-amzn-errortype", b"InternalServerError")]

Scope = dict[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


class State:
    """MiniStack's state on disk: `services/` is a snapshot, `journal` contains the changes after it."""

    def __init__(self, folder: Path) -> None:
        self._snapshot = folder / "services"
        self._new, self._old = folder / "services.new", folder / "services.old"
        if not self._snapshot.exists() and self._old.exists():  # killed between the two renames
            self._old.rename(self._snapshot)
        self._app: Any = importlib.import_module("ministack.app")
        self._persistence: Any = importlib.import_module("ministack.core.persistence")
        self._dynamodb: Any = importlib.import_module("ministack.services.dynamodb")
        self._sqs: Any = importlib.import_module("ministack.services.sqs")
        self._s3: Any = importlib.import_module("ministack.services.s3")
        self._journal = Journal(folder / "journal")
        self._message_ids: dict[str, set[str]] = {}
        self._unwritten_objects: list[tuple[str, str, dict[str, Any]]] = []
        self._is_serving = False
        self._needs_snapshot = False
        self._replay()
        self._intercept_writes()

    def flush(self) -> None:
        """Write every change made so far. Raises: OSError; no change may be acknowledged then."""
        self._add_messages()
        for bucket, key, stored in [*self._unwritten_objects]:
            self._persist(bucket, key, stored)
            if stored["body"] is not None:  # MiniStack drops the body once its file is written
                raise OSError(f"cannot write object {bucket}/{key}")
            self._unwritten_objects.remove((bucket, key, stored))
        self._journal.flush()
        if self._is_serving and (self._needs_snapshot or self._journal.size > MAX_JOURNAL_BYTES):
            self.checkpoint()

    def checkpoint(self) -> None:
        """Replace the snapshot atomically by a current one and clear the journal. Raises: OSError."""
        shutil.rmtree(self._new, ignore_errors=True)
        self._new.mkdir(0o700)
        services: Mapping[str, Any] = self._app._build_persistence_save_dict()
        self._persistence.STATE_DIR = str(self._new)
        try:
            self._persistence.save_all(services)
        finally:
            self._persistence.STATE_DIR = str(self._snapshot)
        if missing := [name for name in services if not (self._new / f"{name}.json").exists()]:
            shutil.rmtree(self._new, ignore_errors=True)
            raise OSError(f"cannot write the state of {', '.join(missing)}")
        shutil.rmtree(self._old, ignore_errors=True)
        if self._snapshot.exists():
            self._snapshot.rename(self._old)
        self._new.rename(self._snapshot)
        shutil.rmtree(self._old, ignore_errors=True)
        self._journal.clear()
        self._is_serving, self._needs_snapshot = True, False

    def record_request(self, scope: Scope, body: bytes) -> None:
        """Schedule a snapshot if this request changes state that the journal does not contain."""
        self._needs_snapshot = self._needs_snapshot or changes_configuration(scope, body)

    def _intercept_writes(self) -> None:
        """Patch MiniStack to record each item and each object that it writes."""
        emit, self._persist = self._dynamodb._emit_stream_event, self._s3._persist_object

        def item_changed(table: str, event: str, old: Any, new: Any) -> None:
            emit(table, event, old, new)
            self._journal.add({"table": table, "put": new} if new else {"table": table, "remove": old})

        def object_changed(bucket: str, key: str, stored: Any) -> None:
            self._persist(bucket, key, stored)
            if isinstance(stored, dict) and cast(Scope, stored)["body"] is not None:
                self._unwritten_objects.append((bucket, key, cast(Scope, stored)))

        self._dynamodb._emit_stream_event = item_changed
        self._s3._persist_object = object_changed

    def _add_messages(self) -> None:
        for (_, _, url), queue in self._sqs._queues._data.items():
            journaled_ids = self._message_ids.setdefault(url, set())
            current_ids = {message["id"] for message in queue["messages"]}
            if current_ids == journaled_ids:
                continue
            for message in queue["messages"]:
                if message["id"] not in journaled_ids:
                    self._journal.add({"queue": url, "message": message}, self._persistence._json_default)
            for deleted_id in journaled_ids - current_ids:
                self._journal.add({"queue": url, "id": deleted_id})
            self._message_ids[url] = current_ids

    def _replay(self) -> None:
        for entry in self._journal.entries(self._persistence._json_object_hook):
            if "queue" in entry:
                self._replay_message(entry)
            else:
                self._replay_item(entry)
        for (_, _, url), queue in self._sqs._queues._data.items():
            for message in queue["messages"]:
                if message["receive_count"]:  # its consumer ended with the previous run
                    message["visible_at"] = message["sent_at"]
            self._message_ids[url] = {message["id"] for message in queue["messages"]}

    def _replay_item(self, entry: dict[str, Any]) -> None:
        if not (table := self._dynamodb._tables.get(entry["table"])):
            return
        if "put" in entry:
            self._dynamodb._put_item({"TableName": entry["table"], "Item": entry["put"]})
            return
        key = {part["AttributeName"]: entry["remove"][part["AttributeName"]] for part in table["KeySchema"]}
        self._dynamodb._delete_item({"TableName": entry["table"], "Key": key})

    def _replay_message(self, entry: dict[str, Any]) -> None:
        message = entry.get("message")
        for (_, _, url), queue in self._sqs._queues._data.items():
            if url == entry["queue"]:
                message_id = message["id"] if message else entry["id"]
                remaining = [queued for queued in queue["messages"] if queued["id"] != message_id]
                queue["messages"] = [*remaining, message] if message else remaining


def changes_configuration(scope: Scope, body: bytes) -> bool:
    """Whether a request may change state other than items, messages and objects: a table, a parameter, a rule."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    action = headers.get(b"x-amz-target", b"").rpartition(b".")[2].decode("latin-1")
    if not action and b"Action=" in body[:4096]:
        action = body.partition(b"Action=")[2].partition(b"&")[0].decode("latin-1")
    if action:
        return not action.startswith((*READS, *ITEM_WRITES, *MESSAGE_WRITES))
    if scope["method"] in ("GET", "HEAD") or scope["path"].endswith("/invocations"):
        return False
    is_object = b"/s3/" in headers.get(b"authorization", b"") and "/" in scope["path"].strip("/")
    return not is_object


class Durable:
    """ASGI middleware: sends a response only after the changes before it are on disk."""

    def __init__(self, ministack: Any, report: Callable[[str], None], folder: Path) -> None:
        self._app = ministack.app
        self._report = report
        self._folder = folder
        self._state = State(folder)
        self._is_failing = False
        ministack.save_all = self._save_all

    def _save_all(self, services: object) -> None:
        """Called by MiniStack when it ends."""
        self._try(self._state.checkpoint)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/_ministack/"):
            await self._app(scope, receive, send)
        elif scope["path"] == CHECKPOINT_PATH:
            failure = self._try(self._state.checkpoint)
            await _respond(send, 500 if failure else 200, failure or "written")
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        body_start = bytearray()
        failure: str | None = None

        async def receive_and_copy() -> dict[str, Any]:
            message = await receive()
            if len(body_start) < 4096:
                body_start.extend(message.get("body", b"")[:4096])
            return message

        async def send_after_flush(message: dict[str, Any]) -> None:
            nonlocal failure
            if message["type"] == "http.response.start":
                if message["status"] < 300:
                    self._state.record_request(scope, bytes(body_start))
                if failure := self._try(self._state.flush):
                    await _respond(send, 500, failure)
            if failure is None:
                await send(message)

        await self._app(scope, receive_and_copy, send_after_flush)

    def _try(self, write: Callable[[], None]) -> str | None:
        """The reason why `write` failed, or None. Reports the first failure and the recovery to the user."""
        try:
            write()
        except OSError as error:
            failure = f"STATE_DIR {self._folder}: cannot write the state: {error.strerror or error}"
            if not self._is_failing:
                self._report(f"{failure}. Requests fail until writing succeeds again")
            self._is_failing = True
            return failure
        if self._is_failing:
            self._report(f"STATE_DIR {self._folder}: writing the state succeeds again")
        self._is_failing = False
        return None


async def _respond(send: Send, status: int, text: str) -> None:
    body = json.dumps({"__type": "InternalServerError", "message": text}).encode()
    await send({"type": "http.response.start", "status": status, "headers": ERROR_HEADERS})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    messages = os.fdopen(int(os.environ.pop("AISERVER_MESSAGES_FD")), "w")
    folder = Path(os.environ["STATE_DIR"]).parent

    def report(text: str) -> None:
        print(text, file=messages, flush=True)

    ministack: Any = importlib.import_module("ministack.app")
    ministack.app = Durable(ministack, report, folder)
    ministack.main()


if __name__ == "__main__":
    main()
