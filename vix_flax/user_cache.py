"""Where this package keeps what it can make again: compiled programs and decoded images."""

import os
from pathlib import Path


def user_cache(part: str) -> Path:
    """`part` of the user's cache folder, which need not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vix_flax" / part


def keep_compiled_programs() -> None:
    """Lets XLA keep compiled programs there; where nothing can be written it does without."""
    import jax

    cache = user_cache("xla")
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # everything still works, a little slower
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
