"""TFDS builders of the official archives: `tfds.data_source("vix_cifar10")`, without TensorFlow.

Importing this file registers them. They write array_record with images in the official order; an
archive (or its unpacked folder) in the data folder or TFDS's manual folder is used as it is, else
the official one is downloaded. TFDS's own builders of these sets need TensorFlow to be prepared.
"""

import abc
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from vix_flax.data import cifar, tiny_imagenet
from vix_flax.data.dataset import Split
from vix_flax.data.download import ARCHIVES, fetch
from vix_flax.data.image_file import decode_image


class OfficialArchive(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Reads what lies in a folder with `find`, or else the archive `ARCHIVES[source]`."""

    VERSION = tfds.core.Version("1.0.0")
    source: ClassVar[str]

    def __init__(self, *, file_format: str = "array_record", **given: Any):
        super().__init__(file_format=file_format, **given)

    @abc.abstractmethod
    def find(self, folder: str) -> Any:
        """What is there of this set, or None."""

    def found(self, dl_manager: tfds.download.DownloadManager) -> Any:
        """What is there in the data folder or the manual folder, or else on the net.

        Raises:
            ValueError: what is there is damaged, or there is nothing and no network.
        """
        downloads = Path(os.fspath(dl_manager.download_dir))
        # `manual_dir` insists that there is one.
        manual = dl_manager._manual_dir or downloads / "manual"
        for folder in (Path(self.data_dir).parents[1], manual):
            there = self.find(os.fspath(folder))
            if there is not None:
                return there
        return self.find(os.fspath(fetch(ARCHIVES[self.source], downloads / "manual")))

    def name_classes(self, classes: tuple[str, ...]) -> None:
        """Tells the labels' names, where only the archive knows them."""
        label = self.info.features["label"]
        if label.num_classes is None:
            label.names = classes

    def described(self, text: str, homepage: str, encoding: str, shape: tuple, classes=None):
        """The DatasetInfo of images and their labels, in the order in which they are written."""
        image = tfds.features.Image(shape=shape, encoding_format=encoding)
        label = tfds.features.ClassLabel(names=classes)
        return tfds.core.DatasetInfo(
            builder=self,
            description=text,
            features=tfds.features.FeaturesDict({"image": image, "label": label}),
            supervised_keys=("image", "label"),
            homepage=homepage,
            disable_shuffling=True,
        )


class VixCifar10(OfficialArchive):
    """CIFAR-10: 50,000 training and 10,000 test images of 32 × 32, 10 classes."""

    source = "cifar10"

    def _info(self):
        about = cifar.URL + "cifar.html"
        return self.described(type(self).__doc__, about, "png", cifar.SHAPE, cifar.CLASSES)

    def find(self, folder):
        """Class names and splits, from the python or the binary version."""
        return cifar.find_official(folder, cifar.CIFAR10, cifar.CLASSES)

    def _split_generators(self, dl_manager):
        classes, splits = self.found(dl_manager)
        self.name_classes(classes)
        return {name: self._generate_examples(split) for name, split in splits.items()}

    def _generate_examples(self, split: Split) -> Iterator[tuple[int, dict]]:
        for i, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
            yield i, {"image": png(image), "label": int(label)}


class VixCifar100(VixCifar10):
    """CIFAR-100: 50,000 training and 10,000 test images of 32 × 32, the 100 fine classes."""

    source = "cifar100"

    def _info(self):
        about = cifar.URL + "cifar.html"
        return self.described(type(self).__doc__, about, "png", cifar.SHAPE)

    def find(self, folder):
        """Class names and splits, from the python or the binary version."""
        return cifar.find_official(folder, cifar.CIFAR100)


class VixTinyImagenet(OfficialArchive):
    """Tiny ImageNet: 100,000 training, 10,000 validation and 10,000 unlabelled test images of
    64 × 64, 200 classes; the label of a test image is -1.
    """

    source = "tiny_imagenet"

    def _info(self):
        about = "http://cs231n.stanford.edu"
        return self.described(type(self).__doc__, about, "jpeg", tiny_imagenet.SHAPE)

    def find(self, folder):
        """Files, class names, and the official splits."""
        return tiny_imagenet.find_official(folder)

    def _split_generators(self, dl_manager):
        files, classes, splits = self.found(dl_manager)
        self.name_classes(classes)
        return {
            name: self._generate_examples(files.origin, files.read, *split)
            for name, split in splits.items()
        }

    def _generate_examples(
        self, origin: Path, read: Callable[[str], bytes], names: list[str], labels: list[int]
    ) -> Iterator[tuple[int, dict]]:
        for i, (name, label) in enumerate(zip(names, labels, strict=True)):
            content = read(name)
            decode_image(content, tiny_imagenet.SHAPE, origin / name)  # raises, if it is damaged
            yield i, {"image": content, "label": label}


def png(image: np.ndarray) -> bytes:
    """The file's content."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


BUILDERS = {builder.source: builder for builder in (VixCifar10, VixCifar100, VixTinyImagenet)}
