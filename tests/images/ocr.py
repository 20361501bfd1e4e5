"""Reads the text in an image, by Debian's `tesseract` (package tesseract-ocr).

Source: https://github.com/tesseract-ocr/tesseract/blob/main/doc/tesseract.1.asc
"""

import io
import os
import shutil
import subprocess

import pytest
from PIL import Image

IS_INSTALLED = shutil.which("tesseract") is not None
MAX_INK = 120  # the brightness of text; an edited image keeps a pale copy of the original, which is not read
ONE_BLOCK = "6"  # of text, in lines
TIMEOUT_S = 60

needs_tesseract = pytest.mark.skipif(
    not IS_INSTALLED, reason="tesseract is not installed: apt-get install tesseract-ocr"
)


def read_text(file: bytes) -> str:
    """The words that are written in an image file, separated by single spaces."""
    gray = Image.open(io.BytesIO(file)).convert("L")
    ink = gray.point([0 if brightness <= MAX_INK else 255 for brightness in range(256)])  # pyright: ignore[reportUnknownMemberType]
    png = io.BytesIO()
    ink.save(png, "PNG")
    process = subprocess.run(
        ["tesseract", "stdin", "stdout", "--psm", ONE_BLOCK],
        input=png.getvalue(),
        capture_output=True,
        check=True,
        timeout=TIMEOUT_S,
        env={**os.environ, "OMP_THREAD_LIMIT": "1"},  # its threads wait for each other on busy cores
    )
    return " ".join(process.stdout.decode().split())
