"""Files are found unpacked or archived; damaged and hostile archives are refused or harmless."""

import io
import os
import tarfile
import zipfile

import pytest

from vix_flax.data.files import LARGEST, find_files

CONTENT = {"a.txt": b"one", "deep/b.txt": b"two" * 1000}


def unpacked(root):
    for name, content in CONTENT.items():
        path = root / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def zipped(root, extra=()):
    root.mkdir(exist_ok=True)
    with zipfile.ZipFile(root / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in [*CONTENT.items(), *extra]:
            archive.writestr(f"set/{name}", content)
    return root


def tarred(root, extra=()):
    root.mkdir(exist_ok=True)
    with tarfile.open(root / "set.tar.gz", "w:gz") as archive:
        for name, content in [*CONTENT.items(), *extra]:
            info = tarfile.TarInfo(f"set/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return root


def found(root):
    return find_files(root, "set", "set.zip") or find_files(root, "set", "set.tar.gz")


@pytest.mark.parametrize("pack", [unpacked, zipped, tarred])
@pytest.mark.parametrize("below", [False, True])
def test_every_form_reads_alike(tmp_path, pack, below):
    root = tmp_path / "data"
    root.mkdir()
    files = found((pack(root / "more" if below else root), root)[1])
    assert files.names == tuple(sorted(CONTENT))
    assert {name: files.read(name) for name in files.names} == CONTENT


def test_the_thing_itself_may_be_named(tmp_path):
    assert found(unpacked(tmp_path) / "set").names == tuple(sorted(CONTENT))
    assert found(zipped(tmp_path / "z") / "set.zip").names == tuple(sorted(CONTENT))
    assert found(tmp_path / "nowhere") is None


@pytest.mark.parametrize("pack", [unpacked, zipped])
def test_the_fingerprint_changes_with_the_files(tmp_path, pack):
    before = found(pack(tmp_path)).fingerprint
    assert found(tmp_path).fingerprint == before
    changed = tmp_path / ("set/a.txt" if pack is unpacked else "set.zip")
    os.utime(changed, ns=(1, 1))
    assert found(tmp_path).fingerprint != before


@pytest.mark.parametrize(("pack", "name"), [(zipped, "set.zip"), (tarred, "set.tar.gz")])
def test_an_archive_that_is_cut_off(tmp_path, pack, name):
    path = pack(tmp_path) / name
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=f"{name} is truncated or damaged"):
        found(tmp_path)


def test_a_damaged_member_of_a_zip(tmp_path):
    path = zipped(tmp_path) / "set.zip"
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"set/a.txt") + len(b"set/a.txt") + 1] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"set\.zip is truncated or damaged"):
        found(tmp_path).read("a.txt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"set\.zip holds no c\.txt"):
        found(zipped(tmp_path)).read("c.txt")


def test_names_that_climb_out_and_links_lead_nowhere(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("keep me")
    root = tarred(tmp_path / "data", [("../../secret.txt", b"overwritten")])
    with tarfile.open(root / "set.tar.gz", "w:gz") as archive:
        link = tarfile.TarInfo("set/link")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        archive.addfile(link)
        climbing = tarfile.TarInfo("set/../../secret.txt")
        climbing.size = 4
        archive.addfile(climbing, io.BytesIO(b"gone"))
    files = found(root)
    assert "link" not in files.names
    assert files.read("../../secret.txt") == b"gone"  # the archive's own bytes
    assert secret.read_text() == "keep me"
    assert [path.name for path in root.iterdir()] == ["set.tar.gz"]


def test_a_decompression_bomb_is_refused_before_it_is_read(tmp_path):
    path = zipped(tmp_path) / "set.zip"
    raw = path.read_bytes()
    size = (len(CONTENT["deep/b.txt"])).to_bytes(4, "little")
    path.write_bytes(raw.replace(size, (LARGEST + 1).to_bytes(4, "little")))
    with pytest.raises(ValueError, match="claims to hold"):
        found(tmp_path)
