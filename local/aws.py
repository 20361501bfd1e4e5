"""AWS clients for the embedded cloud. They ignore the developer's AWS settings, so they cannot reach a real account."""

from __future__ import annotations

import functools
import os
from typing import Any

import boto3
import botocore.session
from botocore.config import Config

from local.template import REGION

# MiniStack accepts any credentials; these select its default account.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_SESSION_TOKEN": ""}


@functools.cache
def session() -> boto3.session.Session:
    """A session without profile, config file and credentials file; AWS_PROFILE is ignored."""
    botocore_session = botocore.session.Session(
        session_vars={
            "profile": (None, None, None, None),
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
        }
    )
    botocore_session.set_credentials(CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"])
    return boto3.session.Session(botocore_session=botocore_session, region_name=REGION)


def client(service: str, endpoint_url: str, *, max_attempts: int | None = None) -> Any:
    """A client for `service` of the embedded cloud at `endpoint_url`; `max_attempts` limits attempts per request."""
    untyped_session: Any = session()
    config = Config(retries={"total_max_attempts": max_attempts}) if max_attempts else None
    return untyped_session.client(service, endpoint_url=endpoint_url, config=config)
