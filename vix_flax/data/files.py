"""The files of a data set, unpacked in a folder or in the archive they came in.

Nothing is ever extracted: names that climb out of the archive or link elsewhere lead nowhere.
"""

import hashlib
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LARGEST = 2**28  # bytes of one file; what claims to hold more is no part of these data sets


@dataclass(frozen=True)
class Files:
    """Files by their path below the data set's folder.

    Attributes:
        origin: the folder or archive.
        names: of all files, sorted, with "/" between their parts.
        read: name → content; of a tar, once.
        fingerprint: changes when anything in it does.
    """

    origin: Path
    names: tuple[str, ...]
    read: Callable[[str], bytes]
    fingerprint: str


def find_files(data_dir: str | Path, folder: str, archive: str) -> Files | None:
    """The folder or else the archive of these names: `data_dir` itself, in it, or one level below;
    or in `downloads/manual`, where TFDS has what was downloaded by hand.

    Args:
        data_dir: where to look.
        folder: name of the unpacked folder.
        archive: name of the archive, `.tar.gz` or `.zip`; may be a pattern with `*`.

    Raises:
        ValueError: an archive that is truncated or damaged.
    """
    root = Path(data_dir).expanduser().resolve()
    if root.is_dir() and root.name == folder:
        return files_in(root)
    if root.is_file() and root.match(archive):
        return _archived(root, folder)
    if not root.is_dir():
        return None
    below = sorted(path for path in root.iterdir() if path.is_dir())
    places = [root, *below, root / "downloads" / "manual"]  # the last is TFDS's
    for place in places:
        if (place / folder).is_dir():
            return files_in(place / folder)
    archives = [path for place in places for path in sorted(place.glob(archive))]
    return _archived(archives[0], folder) if archives else None


def files_in(root: Path) -> Files:
    """All files under a folder."""
    digest, names = hashlib.sha256(), []
    for path in sorted(root.rglob("*")):
        if path.is_file():
            status = path.stat()
            names.append(path.relative_to(root).as_posix())
            digest.update(f"{names[-1]}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())

    def read(name):
        try:
            return (root / name).read_bytes()
        except OSError as error:
            raise ValueError(
                f"{root / name} cannot be read ({error.strerror}); unpack the archive again"
            ) from None

    return Files(root, tuple(names), read, digest.hexdigest())


def _archived(path: Path, folder: str) -> Files:
    try:
        held, read = _zipped(path) if path.suffix == ".zip" else _tarred(path)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise _damaged(path, error) from None
    top = f"{folder}/"
    inside = {name.removeprefix(top): name for name in held if name.startswith(top)}

    def read_below(name):
        if name not in inside:
            raise ValueError(f"{path} holds no {name}: it is not the official archive, or cut off")
        try:
            return read(inside[name])
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise _damaged(path, error) from None

    status = path.stat()
    fingerprint = f"{path.name} {status.st_size} {status.st_mtime_ns}"
    return Files(path, tuple(sorted(inside)), read_below, fingerprint)


def _damaged(path, error):
    return ValueError(f"{path} is truncated or damaged ({error}); get it again")


def _tarred(path):
    """A compressed tar has no index: its files are read all at once, and each is forgotten when it
    has been asked for.
    """
    with tarfile.open(path) as tar:
        content = {}
        for member in tar:
            if member.isfile():
                _check_size(path, member.name, member.size)
                content[member.name] = tar.extractfile(member).read()
    return list(content), content.pop


def _zipped(path):
    archive = zipfile.ZipFile(path)  # closed when nothing refers to it any more
    for member in archive.infolist():
        _check_size(path, member.filename, member.file_size)
    return [name for name in archive.namelist() if not name.endswith("/")], archive.read


def _check_size(path, name, size):
    if size > LARGEST:
        raise ValueError(f"{path}: {name} claims to hold {size:,} bytes; too many")
