"""Where this package keeps what it can make again: compiled programs and decoded images."""

import os
from pathlib import Path


def user_cache(part: str) -> Path:
    """`part` of the user's cache folder, which need not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vix_flax" / part
