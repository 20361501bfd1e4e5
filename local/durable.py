"""Runs MiniStack so that nothing it has acknowledged is lost when the process is killed or the disk is full.

MiniStack (1.4.21) writes its state only when it ends in order, and logs what it could not write. Here each response
waits until the changes before it are on disk: items and messages in a journal, objects in their files, everything else
in a snapshot of all services. While something cannot be written, every response is an error.

Started as a file (`python -P durable.py`), so that `local` is not importable in the handlers MiniStack runs.
Environment: MiniStack's own, and AISERVER_MESSAGES_FD, where messages for people go.
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
    """MiniStack's state on disk: `services/` is a snapshot, `journal` what came after it."""

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
        self._objects: list[tuple[str, str, dict[str, Any]]] = []  # that are not in their files yet
        self._is_serving = False
        self._needs_snapshot = False
        self._replay()
        self._watch()

    def flush(self) -> None:
        """Write every change made so far. Raises: OSError; nothing may be acknowledged then."""
        self._add_messages()
        for bucket, key, stored in [*self._objects]:
            self._persist(bucket, key, stored)
            if stored["body"] is not None:  # MiniStack drops the body once its file is written
                raise OSError(f"object {bucket}/{key} could not be written")
            self._objects.remove((bucket, key, stored))
        self._journal.flush()
        if self._is_serving and (self._needs_snapshot or self._journal.size > MAX_JOURNAL_BYTES):
            self.checkpoint()

    def checkpoint(self) -> None:
        """Replace the snapshot by one of now, as a whole, and empty the journal. Raises: OSError."""
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
            raise OSError(f"the state of {', '.join(missing)} could not be written")
        shutil.rmtree(self._old, ignore_errors=True)
        if self._snapshot.exists():
            self._snapshot.rename(self._old)
        self._new.rename(self._snapshot)
        shutil.rmtree(self._old, ignore_errors=True)
        self._journal.clear()
        self._is_serving, self._needs_snapshot = True, False

    def note(self, scope: Scope, body: bytes) -> None:
        """Ask for a snapshot where this request changes something that the journal does not hold."""
        self._needs_snapshot = self._needs_snapshot or changes_configuration(scope, body)

    def _watch(self) -> None:
        """Hear of each item and each object that MiniStack writes."""
        emit, self._persist = self._dynamodb._emit_stream_event, self._s3._persist_object

        def item_changed(table: str, event: str, old: Any, new: Any) -> None:
            emit(table, event, old, new)
            self._journal.add({"table": table, "put": new} if new else {"table": table, "remove": old})

        def object_changed(bucket: str, key: str, stored: Any) -> None:
            self._persist(bucket, key, stored)
            if isinstance(stored, dict) and cast(Scope, stored)["body"] is not None:
                self._objects.append((bucket, key, cast(Scope, stored)))

        self._dynamodb._emit_stream_event = item_changed
        self._s3._persist_object = object_changed

    def _add_messages(self) -> None:
        for (_, _, url), queue in self._sqs._queues._data.items():
            known = self._message_ids.setdefault(url, set())
            now = {message["id"] for message in queue["messages"]}
            if now == known:
                continue
            for message in queue["messages"]:
                if message["id"] not in known:
                    self._journal.add({"queue": url, "message": message}, self._persistence._json_default)
            for gone in known - now:
                self._journal.add({"queue": url, "id": gone})
            self._message_ids[url] = now

    def _replay(self) -> None:
        for entry in self._journal.entries(self._persistence._json_object_hook):
            if "queue" in entry:
                self._replay_message(entry)
            else:
                self._replay_item(entry)
        for (_, _, url), queue in self._sqs._queues._data.items():
            for message in queue["messages"]:
                if message["receive_count"]:  # by a consumer of the run that has ended
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
                gone = message["id"] if message else entry["id"]
                kept = [one for one in queue["messages"] if one["id"] != gone]
                queue["messages"] = [*kept, message] if message else kept


def changes_configuration(scope: Scope, body: bytes) -> bool:
    """Whether a request may change more than items, messages and objects: a table, a parameter, a rule."""
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
    """ASGI middleware: releases a response once the changes before it are on disk."""

    def __init__(self, ministack: Any, say: Callable[[str], None], folder: Path) -> None:
        self._app = ministack.app
        self._say = say
        self._folder = folder
        self._state = State(folder)
        self._is_failing = False
        ministack.save_all = self._save_all

    def _save_all(self, services: object) -> None:
        """What MiniStack calls when it ends."""
        self._try(self._state.checkpoint)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/_ministack/"):
            await self._app(scope, receive, send)
        elif scope["path"] == CHECKPOINT_PATH:
            failure = self._try(self._state.checkpoint)
            await _answer(send, 500 if failure else 200, failure or "written")
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = bytearray()
        failure: str | None = None

        async def noted_receive() -> dict[str, Any]:
            message = await receive()
            if len(start) < 4096:
                start.extend(message.get("body", b"")[:4096])
            return message

        async def guarded_send(message: dict[str, Any]) -> None:
            nonlocal failure
            if message["type"] == "http.response.start":
                if message["status"] < 300:
                    self._state.note(scope, bytes(start))
                if failure := self._try(self._state.flush):
                    await _answer(send, 500, failure)
            if failure is None:
                await send(message)

        await self._app(scope, noted_receive, guarded_send)

    def _try(self, write: Callable[[], None]) -> str | None:
        """Why `write` failed; people are told once, and once when it works again."""
        try:
            write()
        except OSError as error:
            failure = f"STATE_DIR {self._folder}: the state cannot be written: {error.strerror or error}"
            if not self._is_failing:
                self._say(f"{failure}. Requests fail until it can be")
            self._is_failing = True
            return failure
        if self._is_failing:
            self._say(f"STATE_DIR {self._folder}: the state is written again")
        self._is_failing = False
        return None


async def _answer(send: Send, status: int, text: str) -> None:
    body = json.dumps({"__type": "InternalServerError", "message": text}).encode()
    await send({"type": "http.response.start", "status": status, "headers": ERROR_HEADERS})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    messages = os.fdopen(int(os.environ.pop("AISERVER_MESSAGES_FD")), "w")
    folder = Path(os.environ["STATE_DIR"]).parent

    def say(text: str) -> None:
        print(text, file=messages, flush=True)

    ministack: Any = importlib.import_module("ministack.app")
    ministack.app = Durable(ministack, say, folder)
    ministack.main()


if __name__ == "__main__":
    main()
