"""Encoded images as arrays: all at once on all cores, kept for the next time; or one by one."""

import contextlib
import hashlib
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console
from rich.progress import track

from vix_flax.data.dataset import Split
from vix_flax.data.files import Files
from vix_flax.data.image_file import decode_image
from vix_flax.user_cache import user_cache

BLOCK = 64  # images decoded by one thread in a row
NAMES = "names.txt"  # of the arrays of a cache entry
DAY = 24 * 60 * 60  # seconds
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class OnDemand:
    """Images `(n, h, w, c)` uint8 that are decoded when they are asked for: `images[3]`,
    `images[[5, 1]]`; a slice decodes nothing yet.

    Attributes:
        files, names: where they are.
        image_shape: (h, w, c) of each.
    """

    files: Files
    names: np.ndarray
    image_shape: tuple[int, int, int]

    dtype = np.dtype(np.uint8)
    ndim = 4

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, h, w, c)."""
        return (len(self.names), *self.image_shape)

    def __len__(self):
        return len(self.names)

    def __getitem__(self, chosen):
        if isinstance(chosen, slice):
            return OnDemand(self.files, self.names[chosen], self.image_shape)
        if np.ndim(chosen) == 0:
            return self.decode(chosen)
        return np.stack([self.decode(i) for i in chosen])

    def decode(self, i: int) -> np.ndarray:
        """The i-th, uint8 of `image_shape`."""
        name = str(self.names[i])
        return decode_image(self.files.read(name), self.image_shape, self.files.origin / name)


def decode_splits(
    files: Files,
    splits: Mapping[str, tuple[Sequence[str], Sequence[int]]],
    image_shape: tuple[int, int, int],
    on_bad_image: str = "error",
    stream: bool | None = None,
) -> dict[str, Split]:
    """Splits of image files and their labels, decoded; from the user's cache the second time.

    Args:
        files: where the names lead.
        splits: name → (names of JPEG, PNG, WebP … files, a label for each).
        image_shape: (h, w, c); an image of another shape is cut to its middle and resized.
        on_bad_image: "error", or "skip" to leave out what cannot be decoded and say how many.
        stream: decode images one by one when they are asked for (`OnDemand`), instead of now;
            None: if they would take more than half of the memory that is left.

    Raises:
        ValueError: an image that cannot be decoded, by its path; or none that can.
    """
    if on_bad_image not in ("error", "skip"):
        raise ValueError(f"on_bad_image={on_bad_image!r} must be error or skip")
    names = np.asarray([name for split, _ in splits.values() for name in split])
    encoded = OnDemand(files, names, image_shape)
    if stream is None:
        stream = math.prod(encoded.shape) > memory_left() / 2
    images, good = encoded, np.ones(len(names), bool)
    if not stream or on_bad_image == "skip":
        listed = hashlib.sha256("\0".join(names).encode()).hexdigest()
        held = cached(
            files,
            f"{listed} {image_shape} {on_bad_image} {stream}",
            lambda: _decode(encoded, on_bad_image, keep=not stream),
        )
        good = held["good"]
        images = OnDemand(files, names[good], image_shape) if stream else held["images"]
    if not good.all():
        bad = names[~good]
        print(f"skipped {len(bad):,} images that cannot be read, such as {bad[0]}", file=sys.stderr)
    found, first, start = {}, 0, 0
    for split, (_, labels) in splits.items():
        here = good[first : first + len(labels)]
        stop = start + int(here.sum())
        found[split] = Split(images[start:stop], np.asarray(labels, np.int32)[here])
        first, start = first + len(labels), stop
    return found


def memory_left() -> int:
    """Bytes that this process may still take, as far as the system and its container say."""
    left = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):  # not in a container, or without a limit
        most, now = (int((CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        left = min(left, most - now)
    return left


def _decode(encoded: OnDemand, on_bad_image: str, keep: bool) -> dict[str, np.ndarray]:
    """Which images are `good`; and, to `keep`, those `images`."""
    count, origin = len(encoded), encoded.files.origin
    images = np.empty(encoded.shape if keep else (0,), np.uint8)
    good = np.ones(count, bool)

    def decode(block):
        for i in block:
            try:
                image = encoded.decode(i)
            except ValueError:
                if on_bad_image == "error":
                    raise
                good[i] = False
            else:
                if keep:
                    images[i] = image
        return len(block)

    console = Console(stderr=True)
    bar = dict(console=console, transient=True, disable=not console.is_terminal)
    # Small images are decoded in less time than it takes to hand them to a thread: hence blocks.
    blocks = [range(i, min(i + BLOCK, count)) for i in range(0, count, BLOCK)]
    pool = ThreadPoolExecutor(os.cpu_count())  # Pillow decodes outside the interpreter's lock
    try:
        done = pool.map(decode, blocks)
        list(track(done, f"decoding {origin.name}", len(blocks), **bar))
    finally:
        pool.shutdown(cancel_futures=True)  # at the first error, and at Ctrl-C
    if not good.any():
        raise ValueError(f"{origin}: none of {count} images can be read")
    if not keep:
        return {"good": good}
    return {"images": images if good.all() else images[good], "good": good}


def cached(
    files: Files, what: str, build: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """What `build` made of these files, from the user's cache folder if they have not changed.

    Written aside and renamed when it is whole, so that no reader sees half of it; the entries of
    earlier states of the same files are removed. Where nothing can be written, nothing is kept.

    Args:
        files: that it is made of.
        what: is made; other words for other sizes or rules.
        build: makes the arrays, by name.
    """
    source, state = (
        hashlib.sha256(text.encode()).hexdigest()[:16]
        for text in (f"{files.origin} {what}", files.fingerprint)
    )
    entry = user_cache("data") / f"{source}-{state}"
    if entry.is_dir():
        try:
            names = (entry / NAMES).read_text().split()
            return {name: np.load(entry / f"{name}.npy") for name in names}
        except (OSError, ValueError, EOFError):  # damaged, or part of it is gone
            shutil.rmtree(entry, ignore_errors=True)
    arrays = build()
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix="writing-", dir=entry.parent))
    except OSError as error:
        return _not_kept(arrays, error)
    try:
        for name, array in arrays.items():
            np.save(aside / f"{name}.npy", array)
        (aside / NAMES).write_text(" ".join(arrays))
        for earlier in entry.parent.glob(f"{source}-*"):
            if earlier != entry:
                shutil.rmtree(earlier, ignore_errors=True)
        for left in entry.parent.glob("writing-*"):  # by a process that was killed
            if time.time() - left.stat().st_mtime > DAY:
                shutil.rmtree(left, ignore_errors=True)
        aside.rename(entry)
    except OSError as error:
        # Another process was first, or the disk is full; either way the arrays are here.
        if not entry.is_dir():
            _not_kept(arrays, error)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return arrays


def _not_kept(arrays, error):
    print(f"decoded images are not kept for the next time ({error.strerror})", file=sys.stderr)
    return arrays
