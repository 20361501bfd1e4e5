"""Clients for the embedded cloud that cannot reach the real one: the developer's AWS settings are not read."""

from __future__ import annotations

import functools
import os
from typing import Any

import boto3
import botocore.session
from botocore.config import Config

from local.template import REGION

# MiniStack takes any; these are obviously not real, and name its default account.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_SESSION_TOKEN": ""}


@functools.cache
def session() -> boto3.session.Session:
    """A session without profile, config file and credentials file, whatever AWS_PROFILE says."""
    bare = botocore.session.Session(
        session_vars={
            "profile": (None, None, None, None),
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
        }
    )
    bare.set_credentials(CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"])
    return boto3.session.Session(botocore_session=bare, region_name=REGION)


def client(service: str, endpoint_url: str, *, tries: int | None = None) -> Any:
    """A client for `service` of the embedded cloud at `endpoint_url`; `tries` bounds how often it sends a request."""
    untyped: Any = session()
    config = Config(retries={"total_max_attempts": tries}) if tries else None
    return untyped.client(service, endpoint_url=endpoint_url, config=config)
