"""Many encoded images into one uint8 array, on all cores, and kept for the next time."""

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from vix_flax.data.dataset import Split
from vix_flax.data.files import Files
from vix_flax.data.image_file import decode_image
from vix_flax.user_cache import user_cache


def decode_splits(
    files: Files,
    splits: Mapping[str, tuple[Sequence[str], Sequence[int]]],
    image_shape: tuple[int, int, int],
    on_bad_image: str = "error",
) -> dict[str, Split]:
    """Splits of image files and their labels, decoded; from the user's cache the second time.

    Args:
        files: where the names lead.
        splits: name → (names of JPEG, PNG, WebP … files, a label for each).
        image_shape: (h, w, c); an image of another shape is cut to its middle and resized.
        on_bad_image: "error", or "skip" to leave out what cannot be decoded and say how many.

    Raises:
        ValueError: an image that cannot be decoded, by its path; or none that can.
    """
    if on_bad_image not in ("error", "skip"):
        raise ValueError(f"on_bad_image={on_bad_image!r} must be error or skip")
    names = [name for split, _ in splits.values() for name in split]
    listed = hashlib.sha256("\0".join(names).encode()).hexdigest()
    held = cached(
        files,
        f"{listed} {image_shape} {on_bad_image}",
        lambda: _decode(files, names, image_shape, on_bad_image),
    )
    images, good = held["images"], held["good"]
    if not good.all():
        bad = np.flatnonzero(~good)
        print(
            f"skipped {len(bad):,} images that cannot be read, such as {names[bad[0]]}",
            file=sys.stderr,
        )
    place = np.cumsum(good) - 1  # of a name among the images
    found, start = {}, 0
    for split, (listed, labels) in splits.items():
        here = slice(start, start + len(listed))
        start += len(listed)
        kept = np.asarray(labels, np.int32)[good[here]]
        found[split] = Split(images[place[here][good[here]]], kept)
    return found


def _decode(files, names, image_shape, on_bad_image):
    images = np.empty((len(names), *image_shape), np.uint8)
    good = np.ones(len(names), bool)

    def decode(i):
        try:
            images[i] = decode_image(files.read(names[i]), image_shape, files.origin / names[i])
        except ValueError:
            if on_bad_image == "error":
                raise
            good[i] = False

    console = Console(stderr=True)
    bar = dict(console=console, transient=True, disable=not console.is_terminal)
    pool = ThreadPoolExecutor(os.cpu_count())  # Pillow decodes outside the interpreter's lock
    try:
        for _ in track(
            pool.map(decode, range(len(names))), f"decoding {files.origin.name}", len(names), **bar
        ):
            pass
    finally:
        pool.shutdown(cancel_futures=True)  # at the first error, and at Ctrl-C
    if not good.any():
        raise ValueError(f"{files.origin}: none of {len(names)} images can be read")
    return {"images": images[good], "good": good}


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
            return {path.stem: np.load(path) for path in sorted(entry.glob("*.npy"))}
        except (OSError, ValueError, EOFError):
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
        for earlier in entry.parent.glob(f"{source}-*"):
            shutil.rmtree(earlier, ignore_errors=True)
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
