"""CIFAR-10 from tiny archives in the official layouts, and from broken ones."""

import io
import os
import pickle
import struct

import numpy as np
import pytest
from official_archives import (
    CLASSES100,
    LAYOUTS,
    NAMES,
    binary_file,
    cifar10,
    cifar100,
    files_of,
    python_file,
    rows,
    write,
)

from vix_flax.data import load_dataset
from vix_flax.data.cifar import _from_pickle, load_cifar10


def load(path):
    return load_dataset("cifar10", str(path))


@pytest.mark.parametrize("place", ["itself", "in the folder given", "one level below", "manual"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_official_layout_gives_the_same_images(tmp_path, layout, place):
    batches = cifar10()
    below = "downloads/manual" if place == "manual" else "below"
    path = write(tmp_path / below, layout, files_of(layout, batches))
    places = {"itself": path, "in the folder given": path.parent}
    data = load(places.get(place, tmp_path))

    images = np.concatenate([batches[name][0] for name in NAMES])
    labels = np.concatenate([batches[name][1] for name in NAMES])
    np.testing.assert_array_equal(np.concatenate([data.train.images, data.val.images]), images)
    np.testing.assert_array_equal(np.concatenate([data.train.labels, data.val.labels]), labels)
    np.testing.assert_array_equal(data.test.images, batches["test_batch"][0])
    np.testing.assert_array_equal(data.test.labels, batches["test_batch"][1])
    assert data.train.labels.dtype == np.int32


def test_a_tenth_of_the_training_images_is_for_validation(tmp_path):
    path = write(tmp_path, "binary folder", files_of("binary", cifar10()))
    data = load(path)
    assert (len(data.train), len(data.val), len(data.test)) == (18, 2, 4)
    assert (len(data.classes), data.image_shape) == (10, (32, 32, 3))


class Python2Pickler(pickle._Pickler):
    """Writes `str` and `bytes` alike as Python 2 wrote its strings."""

    def save_string(self, text):
        data = text if isinstance(text, bytes) else text.encode("ascii")
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)

    dispatch = pickle._Pickler.dispatch | {str: save_string, bytes: save_string}


def python2_file(images, labels):
    file = io.BytesIO()
    batch = {"batch_label": "tiny", "labels": labels.tolist(), "data": rows(images)}
    Python2Pickler(file, protocol=2).dump(batch)
    assert b"cnumpy._core.multiarray\n_reconstruct\n" in file.getvalue()
    return file.getvalue().replace(b"numpy._core", b"numpy.core")


def test_pickles_of_python_2_are_read(tmp_path):
    batches = cifar10()
    files = {name: python2_file(*batch) for name, batch in batches.items()}
    data = load(write(tmp_path, "python folder", files))
    np.testing.assert_array_equal(data.test.images, batches["test_batch"][0])
    np.testing.assert_array_equal(data.test.labels, batches["test_batch"][1])


class Command:
    """A pickle of this runs a shell command when it is loaded."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_pickle_that_asks_for_a_command_is_refused_and_not_run(tmp_path):
    files = files_of("python", cifar10())
    files["data_batch_2"] = pickle.dumps(Command(f"touch {tmp_path}/ran"), protocol=2)
    with pytest.raises(ValueError, match=r"data_batch_2.*system"):
        load(write(tmp_path / "data", "python folder", files))
    assert not (tmp_path / "ran").exists()


def test_no_folder_given():
    with pytest.raises(ValueError, match=r"here: run `vix data prepare cifar10`, or put cifar-10-"):
        load_dataset("cifar10")


@pytest.mark.parametrize("name", ["", "nowhere"])
def test_nothing_of_the_kind_there(tmp_path, name):
    with pytest.raises(ValueError, match=r"cifar-10-python\.tar\.gz"):
        load(tmp_path / name)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_missing_batch_is_named(tmp_path, layout):
    files = files_of(layout, cifar10())
    missing = sorted(files)[2]
    del files[missing]
    with pytest.raises(ValueError, match=missing):
        load(write(tmp_path, layout, files))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kept", [0, 100, 5000, -1])
def test_a_truncated_batch_is_named(tmp_path, layout, kept):
    files = files_of(layout, cifar10())
    name = sorted(files)[3]
    files[name] = files[name][:kept]
    with pytest.raises(ValueError, match=name):
        load(write(tmp_path, layout, files))


@pytest.mark.parametrize("layout", ["python archive", "binary archive"])
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9])
def test_a_truncated_archive_is_named(tmp_path, layout, share):
    archive = write(tmp_path, layout, files_of(layout, cifar10()))
    data = archive.read_bytes()
    archive.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=archive.name):
        load(tmp_path)


def test_an_archive_that_is_none(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_text("<html>404</html>")
    with pytest.raises(ValueError, match=r"cifar-10-python\.tar\.gz"):
        load(tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_labels_out_of_range_are_refused(tmp_path, layout):
    batches = cifar10()
    batches["data_batch_4"][1][0] = 10
    with pytest.raises(ValueError, match="label"):
        load(write(tmp_path, layout, files_of(layout, batches)))


@pytest.mark.parametrize(
    "batch",
    [
        [1, 2, 3],
        {b"labels": [1]},
        {b"data": np.zeros((1, 3072), np.uint8)},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]},
        {b"data": np.zeros((1, 3071), np.uint8), b"labels": [1]},
        {b"data": np.zeros((1, 3072), np.float32), b"labels": [1]},
    ],
    ids=["list", "no data", "no labels", "too few labels", "too few pixels", "floats"],
)
def test_a_pickle_of_something_else_is_refused(tmp_path, batch):
    files = files_of("python", cifar10())
    files["test_batch"] = pickle.dumps(batch, protocol=2)
    with pytest.raises(ValueError, match="test_batch"):
        load(write(tmp_path, "python folder", files))


def test_labels_that_are_no_integers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="labels are not all integers"):
        _from_pickle(
            lambda name: python_file(np.zeros((2, 32, 32, 3), np.uint8), np.array([1.5, 2.5])), "x"
        )


def test_a_batch_cut_between_two_images_is_noticed(tmp_path):
    images = np.zeros((4, 32, 32, 3), np.uint8)
    files = {f"data_batch_{i}.bin": binary_file(images, np.zeros(4, int)) for i in range(1, 6)}
    files["test_batch.bin"] = binary_file(images, np.zeros(4, int))
    files["data_batch_3.bin"] = files["data_batch_3.bin"][: 2 * 3073]
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name, raw in files.items():
        (folder / name).write_bytes(raw)
    with pytest.raises(ValueError, match="one of them is truncated"):
        load_cifar10(str(tmp_path))


@pytest.mark.parametrize("kind", ["python", "binary"])
def test_cifar100_has_the_fine_labels(tmp_path, kind):
    sets = cifar100(tmp_path, kind)
    data = load_dataset("cifar100", str(tmp_path))
    assert data.classes == CLASSES100
    assert (len(data.train), len(data.val), len(data.test)) == (18, 2, 4)
    np.testing.assert_array_equal(data.test.images, sets["test"][0])
    np.testing.assert_array_equal(data.test.labels, sets["test"][1])
    np.testing.assert_array_equal(data.val.labels, sets["train"][1][18:])


@pytest.mark.parametrize("kind", ["python", "binary"])
def test_cifar100_needs_its_class_names(tmp_path, kind):
    cifar100(tmp_path, kind, classes=CLASSES100[:50] * 2)
    with pytest.raises(ValueError, match="does not name the classes"):
        load_dataset("cifar100", str(tmp_path))


def test_cifar100_is_not_taken_for_cifar10(tmp_path):
    cifar100(tmp_path, "python")
    with pytest.raises(ValueError, match="no CIFAR-10 under"):
        load_dataset("cifar10", str(tmp_path))
    with pytest.raises(ValueError, match=r"cifar-100-python\.tar\.gz .*cs\.toronto\.edu"):
        load_dataset("cifar100")
