"""What all tests share: no test reaches beyond this machine, or sees the developer's keys."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "guard"))
import sitecustomize  # pyright: ignore[reportMissingImports]  # noqa: E402, F401  the import installs the guard

for name in list(os.environ):
    if name.startswith(("AWS_", "OPENAI_", "OLLAMA_")) or name in ("PROVIDERS", "STATE_DIR", "STRICT_CALLBACKS"):
        del os.environ[name]
