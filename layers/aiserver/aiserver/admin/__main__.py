"""The operator's command line: keys, providers, failed jobs.

    python -m aiserver.admin keys create my-app       shows the key, once
    python -m aiserver.admin keys list
    python -m aiserver.admin keys revoke KEY_ID
    python -m aiserver.admin keys secret KEY_ID       shows what signs its callbacks
    python -m aiserver.admin keys rotate-secret KEY_ID
    python -m aiserver.admin keys callback-hosts KEY_ID hooks.example.com '*.example.org'
    python -m aiserver.admin providers apply providers.yaml
    python -m aiserver.admin providers list
    python -m aiserver.admin jobs redrive JOB_ID …    lets failed jobs try again

AWS_ENDPOINT_URL points it at the embedded cloud; --stack names the stack (aiserver by default).
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from aiserver.admin.stack import Admin, Problem, connect


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    failed = False
    try:
        deeds = _deeds(connect(args.stack), args)
    except Problem as problem:
        return _tell(problem)
    for deed in deeds:  # one that fails keeps no other from being done
        try:
            for line in deed():
                print(json.dumps(line))
        except Problem as problem:
            failed = bool(_tell(problem))
    return int(failed)


def _tell(problem: Problem) -> int:
    print(f"aiserver: {problem}", file=sys.stderr)
    return 1


def _deeds(admin: Admin, args: argparse.Namespace) -> list[Callable[[], list[dict[str, Any]]]]:
    match args.thing, args.verb:
        case "keys", "create":
            return [
                lambda: [admin.create_key(args.name, expires_days=args.expires_days, callback_hosts=args.callback_host)]
            ]
        case "keys", "revoke":
            return [lambda: [admin.revoke_key(args.id)]]
        case "keys", "secret":
            return [lambda: [admin.show_secret(args.id)]]
        case "keys", "rotate-secret":
            return [lambda: [admin.rotate_secret(args.id, overlap_hours=args.overlap_hours)]]
        case "keys", "callback-hosts":
            return [lambda: [admin.set_callback_hosts(args.id, args.host)]]
        case "keys", _:
            return [admin.list_keys]
        case "jobs", _:
            return [partial(admin.redrive, job_id) for job_id in args.id]
        case _, "apply":
            return [lambda: admin.apply_providers(_text(args.file))]
        case _:
            return [admin.list_providers]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise Problem(f"{file} cannot be read: {error.strerror}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aiserver.admin", description="Keys, providers and failed jobs of one stack"
    )
    parser.add_argument("--stack", default=os.environ.get("AISERVER_STACK", "aiserver"))
    things = parser.add_subparsers(dest="thing", required=True)
    verbs = things.add_parser("keys").add_subparsers(dest="verb", required=True)
    create = verbs.add_parser("create")
    create.add_argument("name", help="whose key it is, for `keys list`")
    create.add_argument("--expires-days", type=int)
    create.add_argument("--callback-host", metavar="HOST", nargs="+", action="extend", default=[])
    verbs.add_parser("list")
    verbs.add_parser("revoke").add_argument("id")
    verbs.add_parser("secret").add_argument("id")
    rotate = verbs.add_parser("rotate-secret")
    rotate.add_argument("id")
    rotate.add_argument("--overlap-hours", type=int, default=24, help="how long the old secret signs side by side")
    hosts = verbs.add_parser("callback-hosts")
    hosts.add_argument("id")
    hosts.add_argument("host", nargs="*", help="whom ReplyTo may name from now on; none: any public host")
    verbs = things.add_parser("jobs").add_subparsers(dest="verb", required=True)
    verbs.add_parser("redrive").add_argument("id", type=int, nargs="+")
    verbs = things.add_parser("providers").add_subparsers(dest="verb", required=True)
    verbs.add_parser("apply").add_argument("file", type=Path)
    verbs.add_parser("list")
    return parser


if __name__ == "__main__":
    sys.exit(main())
