"""Packs functions and layers as `sam package` does and uploads them to the embedded cloud's S3.

The `aiserver` layer is packed as deployed (`python/aiserver/…`). The dependencies layer is almost empty here: MiniStack
and the gateway run handlers on the virtual environment's interpreter, whose packages the same lock file pins. Packing
them again would cost seconds at every start.
"""

from __future__ import annotations

import copy
import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from local import aws
from local.template import Template

BUCKET = "packages"
_FIXED_DATE = (1980, 1, 1, 0, 0, 0)  # zip's oldest date: the same files give the same zip
_EXCLUDED = {"__pycache__"}


def upload(template: Template, endpoint_url: str) -> dict[str, Any]:
    """Upload every zip; returns the template with CodeUri and ContentUri pointing at them."""
    s3 = aws.client("s3", endpoint_url)
    s3.create_bucket(Bucket=BUCKET)
    packaged = copy.deepcopy(template.source)
    s3_keys: dict[Path, str] = {}
    for logical_id, resource in packaged["Resources"].items():
        properties = resource.get("Properties", {})
        for key in properties.keys() & {"CodeUri", "ContentUri"}:
            folder = template.root / properties[key]
            if folder not in s3_keys:
                content = pack_layer(folder) if key == "ContentUri" else pack_function(folder)
                s3_keys[folder] = f"{logical_id}-{hashlib.sha256(content).hexdigest()[:16]}.zip"
                s3.put_object(Bucket=BUCKET, Key=s3_keys[folder], Body=content)
            properties[key] = f"s3://{BUCKET}/{s3_keys[folder]}"
            resource.pop("Metadata", None)  # BuildMethod: already built
    return packaged


def pack_function(folder: Path) -> bytes:
    """The zip of one function: its files at the root."""
    return _zip({str(path.relative_to(folder)): path for path in _files(folder)})


def pack_layer(folder: Path) -> bytes:
    """The zip of one layer: its packages below `python/`; without packages it contains only a note."""
    packages = [init.parent for init in sorted(folder.glob("*/__init__.py"))]
    files = {f"python/{path.relative_to(folder)}": path for package in packages for path in _files(package)}
    return _zip(files, note="" if files else "see requirements.txt; the local interpreter has these packages\n")


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not _EXCLUDED.intersection(path.parts):
            yield path


def _zip(files: dict[str, Path], *, note: str = "") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in files.items():
            archive.writestr(_entry(name, path.stat().st_mode), path.read_bytes())
        if note:
            archive.writestr(_entry("python/NOTE.txt", 0o644), note)
    return buffer.getvalue()


def _entry(name: str, mode: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _FIXED_DATE)
    entry.external_attr = (0o100000 | (0o755 if mode & 0o100 else 0o644)) << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry
