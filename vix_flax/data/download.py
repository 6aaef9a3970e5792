"""Official archives from the net: checked by their digest, and gone on with after an interruption.

TFDS's own downloads start over, and without a network they retry in silence for minutes.
"""

import contextlib
import hashlib
import socket
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from rich import progress as bars
from rich.console import Console

PATIENCE = 0.8  # seconds for a connection: long enough for any server, short enough for a person
BLOCK = 2**20


@dataclass(frozen=True)
class Archive:
    """A file on the net, known by its content.

    Attributes:
        url: where it is.
        digest: "sha256:…" or "md5:…".
    """

    url: str
    digest: str

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]


ARCHIVES = {
    "cifar10": Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    ),
    "cifar100": Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        "sha256:58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    ),
    "tiny_imagenet": Archive(
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        "md5:90528d7ca1a48142e341f4ef8d21d0de",
    ),
}


def fetch(archive: Archive, folder: Path) -> Path:
    """The archive in `folder`, downloaded if it is not there.

    What has come so far lies in `<name>.part`, where the next call goes on; only what has the right
    digest gets its name.

    Raises:
        ValueError: no network, an interrupted or refused download, another content than expected,
            or no space; says what to do.
    """
    target = folder / archive.name
    if target.is_file():
        return target
    part = target.with_name(f"{target.name}.part")
    _require_connection(archive, target)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _download(archive, part)
    except urllib.error.HTTPError as error:
        raise ValueError(
            f"{archive.url} is refused ({error.code} {error.reason}): {_by_hand(archive, target)}"
        ) from None
    except (OSError, EOFError) as error:
        so_far = part.stat().st_size if part.is_file() else 0
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise ValueError(
            f"{archive.url}: stopped after {so_far:,} bytes ({reason}); the same command goes on"
        ) from None
    name, _, expected = archive.digest.partition(":")
    with part.open("rb") as file:
        found = hashlib.file_digest(file, name).hexdigest()
    if found != expected:
        part.unlink()
        raise ValueError(
            f"{archive.url} has the {name} {found} instead of {expected}: it is damaged or not the "
            "official file, and was removed"
        )
    return part.rename(target)


def _download(archive: Archive, part: Path) -> None:
    """All of the file into `part`, behind what is there already.

    Raises:
        EOFError: the connection ended before the file did.
    """
    start = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(archive.url, headers={"User-Agent": "vix_flax"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        # An opener of our own: urlopen keeps the proxies of its first call.
        response = urllib.request.build_opener().open(request, timeout=30)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing is left to send
            raise
        return
    with response:
        if response.status != 206:  # the server sends it from the start
            start = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        console = Console(stderr=True)
        bar = bars.Progress(
            *("{task.description}", bars.BarColumn(), bars.DownloadColumn()),
            *(bars.TransferSpeedColumn(), bars.TimeRemainingColumn()),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        print(f"downloading {archive.url}", file=sys.stderr)
        with part.open("ab" if start else "wb") as file, bar:
            task = bar.add_task(archive.name, total=total, completed=start)
            while block := response.read(BLOCK):
                file.write(block)
                bar.advance(task, len(block))
        if total is not None and part.stat().st_size < total:
            raise EOFError("the connection ended early")


def _require_connection(archive: Archive, target: Path) -> None:
    """Raises ValueError, within a second, if nobody answers at the archive's host or our proxy."""
    url = urllib.parse.urlsplit(archive.url)
    proxy = urllib.request.getproxies().get(url.scheme)
    if proxy and not urllib.request.proxy_bypass(url.hostname):
        url = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
    port = url.port or {"http": 80, "https": 443}.get(url.scheme, 80)
    reached = threading.Event()

    def connect(family, address):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as there:
            there.settimeout(PATIENCE)
            there.connect(address)
            reached.set()

    def look_up():
        with contextlib.suppress(OSError):
            for family, *_, address in socket.getaddrinfo(
                url.hostname, port, type=socket.SOCK_STREAM
            ):
                threading.Thread(target=connect, args=(family, address), daemon=True).start()

    # Threads, because looking up a name takes as long as it likes, and of several addresses the
    # first may be the one that is dead.
    threading.Thread(target=look_up, daemon=True).start()
    if not reached.wait(PATIENCE):
        raise ValueError(f"cannot reach {url.hostname}: {_by_hand(archive, target)}")


def _by_hand(archive: Archive, target: Path) -> str:
    return f"download {archive.url} where there is a network, put it at {target}, and try again"
