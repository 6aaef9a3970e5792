"""Data sets that TFDS has prepared, by our builders or its own: `DIR/cifar10/3.0.2/…`."""

import contextlib
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import filelock
import numpy as np

from vix_flax.data.decode import cached
from vix_flax.data.files import Files, files_in
from vix_flax.reason import reason

BLOCK = 4096  # records read at once
Named = tuple[list[str], np.ndarray]


def default_data_dir() -> Path:
    """Where TFDS keeps its data sets, unless told otherwise."""
    return Path(os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets")


def nothing_there(name: str, title: str, data_dir: str | None, expected: str, url: str) -> str:
    """What to say where a data set should be and is not."""
    place = data_dir or default_data_dir()
    flag = f" --data-dir {data_dir}" if data_dir else ""
    others = [
        f"; {path} is in the format {kind}, which only TensorFlow reads"
        for path, kind in _prepared(place, (name,))
    ]
    return (
        f"no {title} under {place}: run `vix data prepare {name}{flag}`, or put {expected} there "
        f"(from {url}){''.join(others[:1])}"
    )


def find_prepared(data_dir: str | Path, names: Sequence[str]) -> Path | None:
    """The newest version in array_record of the first of these sets under `data_dir`, which may
    also be the set or the version itself.
    """
    of_kind = (path for path, kind in _prepared(data_dir, names) if kind == "array_record")
    return next(of_kind, None)


def _prepared(data_dir: str | Path, names: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """Folder and format of each prepared version, the wanted first."""
    root = Path(data_dir).expanduser().resolve()
    for name in names:
        places = [root] if root.parent.name == name else []
        for place in places + _versions(root if root.name == name else root / name):
            with contextlib.suppress(OSError, ValueError):
                info = json.loads((place / "dataset_info.json").read_text())
                yield place, info.get("fileFormat") or "tfrecord"


def _versions(folder: Path) -> list[Path]:
    """Finished versions, the newest first; what TFDS is still writing has a longer name."""
    found = folder.iterdir() if folder.is_dir() else ()
    complete = [path for path in found if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
    return sorted(complete, key=lambda p: tuple(map(int, p.name.split("."))), reverse=True)


def read_prepared(
    folder: Path, splits: Sequence[str]
) -> tuple[Files, tuple[str, ...], dict[str, Named]]:
    """Encoded images as files, the names of the classes, and each split's (names, labels).

    Images with an `id` (as TFDS's own builders give them) come in its order, others as written:
    the official order either way.

    Raises:
        ValueError: files that are missing or damaged, or no such split.
    """
    files = files_in(folder)

    @cache
    def source(split):
        import tensorflow_datasets as tfds

        try:
            builder = tfds.builder_from_directory(folder)
            encoded = {"image": tfds.decode.SkipDecoding()}
            return builder.as_data_source(split=split, decoders=encoded)
        except Exception as error:  # of many kinds: TFDS's, protobuf's, array_record's
            raise _damaged(folder, error) from None

    def read(name):
        split, _, row = name.partition("/")
        try:
            return source(split)[int(row)]["image"]
        except (RuntimeError, OSError, IndexError) as error:
            raise _damaged(folder, error) from None

    def labels_and_order():
        arrays = {}
        for split in splits:
            records, labels, keys = source(split), [], []
            for start in range(0, len(records), BLOCK):
                try:
                    some = records.__getitems__(range(start, min(start + BLOCK, len(records))))
                except Exception as error:
                    raise _damaged(folder, error) from None
                labels += [record["label"] for record in some]
                keys += [record.get("id", b"") for record in some]
            order = np.argsort(np.asarray(keys), kind="stable")
            arrays[f"{split}-order"] = order
            arrays[f"{split}-labels"] = np.asarray(labels, np.int32)[order]
        return arrays

    held = cached(files, f"labels of {splits}", labels_and_order)
    named = {
        split: ([f"{split}/{i}" for i in held[f"{split}-order"]], held[f"{split}-labels"])
        for split in splits
    }
    classes = tuple(files.read("label.labels.txt").decode().splitlines())
    return replace(files, read=read), classes, named


def _damaged(folder: Path, error: Exception) -> ValueError:
    return ValueError(f"{folder} cannot be read ({reason(error)}): remove it and prepare it again")


def prepare(name: str, data_dir: str | Path | None = None) -> Path:
    """Makes a TFDS set of an official archive, found under `data_dir` or downloaded; its folder.

    One process at a time; a set gets its name when it is whole. The second call returns at once.

    Raises:
        ValueError: no such set, no archive and no network, or an archive that is damaged.
    """
    import tensorflow_datasets as tfds

    from vix_flax.data.builders import BUILDERS

    builder = BUILDERS[name]
    root = Path(data_dir or default_data_dir()).expanduser().resolve()
    with _alone(root / builder.name):
        for unfinished in (root / builder.name).glob("*.incomplete*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        if not sys.stderr.isatty():
            tfds.disable_progress_bar()
        print(f"preparing {builder.name} in {root}", file=sys.stderr)
        try:
            made = builder(data_dir=os.fspath(root))
            with contextlib.redirect_stdout(io.StringIO()):  # its bars go to stderr
                made.download_and_prepare()
        except ValueError:
            raise
        except Exception as error:  # of TFDS, array_record or the system
            raise ValueError(
                f"{builder.name} cannot be prepared in {root}: {reason(error)}"
            ) from None
    return Path(os.fspath(made.data_dir))


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits until no other process prepares this folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            print(f"another process prepares {folder.name}: waiting for it", file=sys.stderr)
            lock.acquire()
    except OSError as error:
        raise ValueError(f"{folder} cannot be written ({error.strerror})") from None
    try:
        yield
    finally:
        lock.release()
