"""Official archives become TFDS sets, without TensorFlow, and are read as they were."""

import contextlib
import io
import json
import shutil
import subprocess
import sys
import threading
import zipfile

import jax.numpy as jnp
import numpy as np
import official_archives as official
import optax
import pytest
import tensorflow_datasets as tfds
from flax import linen as nn

from vix_flax.cli import main
from vix_flax.data import Augment, TrainBatches, builders, download, load_dataset
from vix_flax.data.builders import png
from vix_flax.data.prepared import find_prepared, prepare
from vix_flax.training import create_state, train_step


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def cifar10(layout):
    def put(root):
        official.write(root, layout, official.files_of(layout, official.cifar10()))

    return put


SOURCES = {
    "cifar10 from the python archive": ("cifar10", cifar10("python archive")),
    "cifar10 from the binary folder": ("cifar10", cifar10("binary folder")),
    "cifar100 from the python folder": ("cifar100", lambda r: official.cifar100(r, "python")),
    "cifar100 from the binary folder": ("cifar100", lambda r: official.cifar100(r, "binary")),
    "tiny_imagenet from the zip": (
        "tiny_imagenet",
        lambda root: official.packed(root, official.tiny_imagenet()),
    ),
}


def moved(folder, root):
    """The prepared set alone, in another place."""
    target = root / folder.parent.name / folder.name
    shutil.copytree(folder, target)
    return str(root)


def assert_same(data, other):
    assert (data.classes, data.mean, data.std) == (other.classes, other.mean, other.std)
    for name in ("train", "val", "test"):
        ours, theirs = getattr(data, name), getattr(other, name)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        rows = range(len(theirs))
        np.testing.assert_array_equal(ours.images[rows], theirs.images[rows])


class Linear(nn.Module):
    @nn.compact
    def __call__(self, img, *, train=False):
        return nn.Dense(100)(img.reshape(len(img), -1))


@pytest.mark.parametrize("source", SOURCES)
def test_a_prepared_set_has_the_archives_images_and_trains(source, tmp_path):
    name, put = SOURCES[source]
    (tmp_path / "data").mkdir()
    put(tmp_path / "data")
    wanted = load_dataset(name, str(tmp_path / "data"))
    folder = prepare(name, tmp_path / "data")
    assert folder == tmp_path / "data" / f"vix_{name}" / "1.0.0"
    data = load_dataset(name, moved(folder, tmp_path / "alone"))
    assert_same(data, wanted)
    state = create_state(Linear(), jnp.zeros((1, *data.image_shape)), optax.sgd(0.1))
    augment = Augment(data.mean, data.std, flip=True)
    for batch in TrainBatches(data.train, 4).epoch(0):
        state, metrics = train_step(state, batch, augment=augment)
    assert np.isfinite(metrics["loss"])
    assert "tensorflow" not in sys.modules


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with the zip of Tiny ImageNet and what was prepared from it."""
    root = tmp_path_factory.mktemp("tiny")
    official.packed(root, official.tiny_imagenet())
    prepare("tiny_imagenet", root)
    return root


@pytest.mark.parametrize("place", [".", "vix_tiny_imagenet", "vix_tiny_imagenet/1.0.0"])
def test_a_stream_from_it_is_the_same(tiny, place):
    data = load_dataset("tiny_imagenet", str(tiny / place), stream=False)
    streamed = load_dataset("tiny_imagenet", str(tiny / place), stream=True)
    assert_same(streamed, data)
    batches = [
        TrainBatches(split.train, 16, 5, loader)
        for split, loader in ((data, "memory"), (streamed, "stream"))
    ]
    for _ in range(5):  # of an epoch of three, and the next
        a, b = map(next, batches)
        np.testing.assert_array_equal(a["image"], b["image"])
        np.testing.assert_array_equal(a["label"], b["label"])


def test_tfds_itself_reads_it(tiny):
    images = tfds.data_source("vix_tiny_imagenet", split="train", data_dir=tiny)
    assert len(images) == 60
    assert images[0]["image"].shape == (64, 64, 3)  # a greyscale file
    test = tfds.data_source("vix_tiny_imagenet", split="test", data_dir=tiny)
    assert [record["label"] for record in test] == [-1]
    info = tfds.builder("vix_tiny_imagenet", data_dir=tiny).info
    assert info.features["label"].names == ["Egyptian cat", "bullfrog", "reel"]


def test_the_second_time_nothing_is_done(tiny, monkeypatch):
    monkeypatch.setattr(builders.VixTinyImagenet, "_generate_examples", None)
    assert prepare("tiny_imagenet", tiny) == tiny / "vix_tiny_imagenet" / "1.0.0"


def test_without_an_archive_it_is_downloaded(tmp_path, monkeypatch):
    def fetch(archive, folder):
        assert archive == download.ARCHIVES["cifar10"]
        cifar10("binary archive")(folder)
        return folder / archive.name

    monkeypatch.setattr(builders, "fetch", fetch)
    folder = prepare("cifar10", tmp_path)
    assert (tmp_path / "downloads" / "manual" / "cifar-10-binary.tar.gz").is_file()
    assert len(load_dataset("cifar10", str(folder)).test) == 4


class Cifar10(tfds.core.GeneratorBasedBuilder):
    """As TFDS's own, which needs TensorFlow: with an id, and shuffled."""

    name, VERSION = "cifar10", tfds.core.Version("3.0.2")

    def _info(self):
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(32, 32, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=builders.cifar.CLASSES),
        }
        features = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        files = official.cifar10()
        parts = [files[name] for name in official.NAMES]
        train = tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return {
            "train": self._generate_examples("train", *train),
            "test": self._generate_examples("test", *files["test_batch"]),
        }

    def _generate_examples(self, split, images, labels):
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield i, {"id": f"{split}_{i:05}", "image": png(image), "label": int(label)}


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    root = tmp_path_factory.mktemp("stock")
    with contextlib.redirect_stdout(io.StringIO()):
        Cifar10(data_dir=root, file_format="array_record").download_and_prepare()
    return root


def test_what_tfds_has_prepared_is_read_in_the_official_order(stock, tmp_path):
    stored = tfds.builder_from_directory(stock / "cifar10" / "3.0.2").as_data_source(split="train")
    assert [record["id"] for record in stored] != sorted(record["id"] for record in stored)
    cifar10("python archive")(tmp_path)
    assert_same(load_dataset("cifar10", str(stock)), load_dataset("cifar10", str(tmp_path)))


def test_the_newest_version_counts_and_unfinished_ones_do_not(stock, tmp_path):
    root = moved(stock / "cifar10" / "3.0.2", tmp_path)
    for other in ("3.0.1", "3.0.10.incomplete_ABC"):
        shutil.copytree(tmp_path / "cifar10" / "3.0.2", tmp_path / "cifar10" / other)
    assert find_prepared(root, ("vix_cifar10", "cifar10")).name == "3.0.2"
    shutil.copytree(tmp_path / "cifar10" / "3.0.2", tmp_path / "cifar10" / "3.0.10")
    assert find_prepared(root, ("vix_cifar10", "cifar10")).name == "3.0.10"
    (tmp_path / "cifar10" / "3.0.10" / "dataset_info.json").unlink()
    assert find_prepared(root, ("vix_cifar10", "cifar10")).name == "3.0.2"


def test_a_format_of_tensorflow_is_refused(stock, tmp_path):
    root = moved(stock / "cifar10" / "3.0.2", tmp_path)
    path = tmp_path / "cifar10" / "3.0.2" / "dataset_info.json"
    info = {**json.loads(path.read_text()), "fileFormat": "tfrecord"}
    path.write_text(json.dumps(info))
    with pytest.raises(ValueError, match=r"data prepare.* tfrecord, which only TensorFlow reads"):
        load_dataset("cifar10", root)
    cifar10("python archive")(tmp_path)  # is read instead
    assert len(load_dataset("cifar10", root).test) == 4


@pytest.mark.parametrize("name", ["features.json", "cifar10-train.array_record-00000-of-00001"])
@pytest.mark.parametrize("kept", [None, 0, 100])
def test_a_damaged_set_says_so(stock, tmp_path, name, kept):
    root = moved(stock / "cifar10" / "3.0.2", tmp_path)
    path = tmp_path / "cifar10" / "3.0.2" / name
    path.unlink() if kept is None else path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"3\.0\.2 cannot be read .*prepare it again"):
        load_dataset("cifar10", root)


def stopping(error):
    """A builder's way to write one image and then fail."""

    def png(image):
        if png.calls:
            raise error
        png.calls += 1
        return builders_png(image)

    png.calls, builders_png = 0, builders.png
    return png


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(28, "No space left on device"), "cannot be prepared in .*No space left on device"),
        (ValueError("x.JPEG is no image that can be read"), "x.JPEG is no image"),
    ],
)
def test_what_is_half_prepared_never_looks_finished(tmp_path, monkeypatch, error, raised):
    cifar10("binary archive")(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(builders, "png", stopping(error))
        kind, text = (ValueError, raised) if isinstance(raised, str) else (raised, None)
        with pytest.raises(kind, match=text):
            prepare("cifar10", tmp_path)
    assert find_prepared(tmp_path, ("vix_cifar10",)) is None
    left = tmp_path / "vix_cifar10" / "1.0.0.incomplete_LEFT"  # as `kill -9` leaves it
    left.mkdir()
    assert len(load_dataset("cifar10", str(prepare("cifar10", tmp_path))).test) == 4
    assert not left.exists()


def test_the_second_process_waits_for_the_first(tmp_path, monkeypatch, capsys):
    cifar10("binary archive")(tmp_path)
    inside, go_on = threading.Event(), threading.Event()
    original, made = builders.VixCifar10.found, []

    def found(builder, dl_manager):
        made.append(builder)
        inside.set()
        assert go_on.wait(60)
        return original(builder, dl_manager)

    monkeypatch.setattr(builders.VixCifar10, "found", found)
    first = threading.Thread(target=prepare, args=("cifar10", tmp_path))
    first.start()
    assert inside.wait(60)
    command = [sys.executable, "-m", "vix_flax", "data", "prepare", "cifar10"]
    second = subprocess.Popen(
        [*command, "--data-dir", str(tmp_path)], stderr=subprocess.PIPE, text=True
    )
    assert "another process prepares vix_cifar10" in second.stderr.readline()
    assert second.poll() is None
    go_on.set()
    first.join()
    assert second.wait(60) == 0
    second.stderr.close()
    assert len(made) == 1
    assert find_prepared(tmp_path, ("vix_cifar10",)) is not None


def run(*argv):
    return main(["data", "prepare", *argv])


def test_the_command_prepares(tmp_path, capsys):
    official.cifar100(tmp_path, "binary")
    assert run("cifar100", "--data-dir", str(tmp_path)) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said == f"cifar100 is prepared in {tmp_path}/vix_cifar100/1.0.0"
    assert run("digits") == 0
    assert "digits: 1,797 images can be read" in capsys.readouterr().out


def test_mistakes_of_the_command_are_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(download.socket, "getaddrinfo", lambda *_, **__: [])
    (tmp_path / "file").write_text("")
    files = official.tiny_imagenet()
    files["val/images/val_3.JPEG"] = b"no image"
    (tmp_path / "bad").mkdir()
    official.packed(tmp_path / "bad", files)
    for argv, message in (
        (["cifar10", "--data-dir", str(tmp_path)], "cannot reach www.cs.toronto.edu: download"),
        (["cifar10", "--data-dir", str(tmp_path / "file")], "cannot be written"),
        (["cifar"], "unknown dataset 'cifar'"),
        ([], "needs the NAME"),
        (["tiny_imagenet", "--data-dir", str(tmp_path / "bad")], "val/images/val_3.JPEG is no"),
    ):
        assert run(*argv) == 2
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert line.startswith("vix: error: ")
        assert message in line


def test_names_that_climb_out_of_the_zip_lead_nowhere(tmp_path):
    official.packed(tmp_path, official.tiny_imagenet())
    with zipfile.ZipFile(tmp_path / "tiny-imagenet-200.zip", "a") as archive:
        archive.writestr("tiny-imagenet-200/../../climbed.JPEG", b"out")
        archive.writestr("/tmp/climbed.JPEG", b"out")
    prepare("tiny_imagenet", tmp_path)
    assert not list(tmp_path.parent.glob("climbed*"))
