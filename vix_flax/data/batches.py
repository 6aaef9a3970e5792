"""Batches of a split: the same images in the same order, wherever the images are.

`memory`: rows of the array are copied. `device`: the array lies on the device, a batch names its
rows, and the jitted step gathers them. `stream`: images are decoded some batches ahead (by grain).
"""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import jax
import numpy as np

from vix_flax.data.dataset import Split
from vix_flax.suggest import did_you_mean

LOADERS = ("memory", "device", "stream")


class TrainBatches:
    """An endless iterator over shuffled batches, whose whole state is an epoch and a step.

    Batches are `{"image": uint8 (b, h, w, c), "label": int32 (b,)}`, in an order that (seed, epoch)
    fixes; an epoch leaves out its incomplete last batch. With `loader="device"` image and label are
    the whole split's, on the device, and `"index"` int32 (b,) names the batch's rows.

    Attributes:
        steps: batches in an epoch.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seed: int = 0,
        loader: str = "memory",
        shard: tuple[int, int] = (0, 1),
        steps_at_once: int = 1,
        put: Callable[[dict[str, np.ndarray]], dict[str, jax.Array]] = jax.device_put,
    ):
        """Starts at the first batch of epoch 0.

        Args:
            split: what to draw from.
            batch_size: images a step, of all shards together; a smaller split is one batch.
            seed: of the order.
            loader: in `LOADERS`.
            shard: (i, n): the i-th of n equal parts of every batch, for n processes.
            steps_at_once: with `loader="device"`, `"index"` is (steps_at_once, b), but what is left
                of an epoch comes batch by batch.
            put: how the split gets on the devices, with `loader="device"`.

        Raises:
            ValueError: an unknown loader, images that it cannot hold, or a batch that n parts do
                not divide.
        """
        if loader not in LOADERS:
            raise ValueError(f"unknown loader {loader!r}" + did_you_mean(loader, LOADERS))
        if steps_at_once > 1 and loader != "device":
            raise ValueError(
                f"steps_at_once={steps_at_once} needs images on the device; loader={loader!r} has "
                "them on the host"
            )
        if loader != "stream" and not isinstance(split.images, np.ndarray):
            raise ValueError(f"loader={loader!r}: these images are not in memory; use 'stream'")
        self.batch_size = min(batch_size, len(split))
        self.steps = len(split) // self.batch_size
        self.first, self.part = _part_of(self.batch_size, shard)
        self.split, self.seed, self.loader = split, seed, loader
        self.steps_at_once, self.put = steps_at_once, put
        self.position, self._records, self._resident = 0, None, None
        self.order = lru_cache(maxsize=2)(self._order)  # reading ahead crosses into the next epoch

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.split))

    def rows(self, position: int) -> np.ndarray:
        """Which of the split's images this shard's part of a batch has, counted from the first."""
        epoch, step = divmod(position, self.steps)
        start = step * self.batch_size + self.first
        return self.order(epoch)[start : start + self.part]

    def __iter__(self) -> Iterator[dict]:
        return self

    def __next__(self) -> dict[str, np.ndarray | jax.Array]:
        position, self.position = self.position, self.position + 1
        if self.loader == "device":
            return self._resident_batch(position)
        if self.loader == "stream":
            if self._records is None:
                self._records = read_ahead(self.split, _Upcoming(self, position))
            return next(self._records)
        rows = self.rows(position)
        return {"image": self.split.images[rows], "label": self.split.labels[rows]}

    def _resident_batch(self, position):
        if self._resident is None:
            self._resident = self.put({"image": self.split.images, "label": self.split.labels})
        left, index = self.steps - position % self.steps, self.rows(position)
        if 1 < self.steps_at_once <= left:
            self.position = position + self.steps_at_once
            index = np.stack([self.rows(each) for each in range(position, self.position)])
        return {**self._resident, "index": index.astype(np.int32)}

    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Of the batches, all shards together; for what must be known before the first is read."""
        images, labels = self.split.images, self.split.labels
        index = (self.batch_size,)
        if 1 < self.steps_at_once <= self.steps:
            index = (self.steps_at_once, *index)
        count = len(self.split) if self.loader == "device" else self.batch_size
        shapes = {
            "image": jax.ShapeDtypeStruct((count, *images.shape[1:]), images.dtype),
            "label": jax.ShapeDtypeStruct((count, *labels.shape[1:]), labels.dtype),
        }
        if self.loader == "device":
            shapes["index"] = jax.ShapeDtypeStruct(index, np.int32)
        return shapes

    def epoch(self, epoch: int) -> Iterator[dict]:
        """The batches of one epoch; those that are left of it, if the iterator stands within."""
        if self.position // self.steps != epoch:
            self.restore({**self.state(), "epoch": epoch, "step": 0})
        while self.position // self.steps == epoch:
            yield next(self)

    def state(self) -> dict[str, int]:
        """Where the next batch comes from: `epoch`, `step`, and what they refer to."""
        epoch, step = divmod(self.position, self.steps)
        return {"epoch": epoch, "step": step, **self._identity()}

    def restore(self, state: dict[str, int]) -> None:
        """Goes on where `state` was taken, by any loader and for any number of shards.

        Raises:
            ValueError: it is of another split, batch size or seed.
        """
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise ValueError(
                    f"these batches have {name}={value}, the state's have {state.get(name)}"
                )
        self.position = state["epoch"] * self.steps + state["step"]
        self._records = None

    def _identity(self):
        return {"images": len(self.split), "batch_size": self.batch_size, "seed": self.seed}


def eval_batches(
    split: Split, batch_size: int, shard: tuple[int, int] = (0, 1), multiple_of: int = 1
) -> Iterator[dict]:
    """Every image once, in order; `mask` (b,) float32 is 0 where the last batch repeats an image.

    Args:
        split: what to go through.
        batch_size: images a batch, of all shards together.
        shard: (i, n): the i-th of n equal parts of every batch, for n processes.
        multiple_of: the batch size is rounded up to a multiple of it: the number of devices.

    Raises:
        ValueError: a batch that n parts do not divide.
    """
    batch_size = -(-min(batch_size, len(split)) // multiple_of) * multiple_of
    first, part = _part_of(batch_size, shard)
    starts = np.arange(0, len(split), batch_size)
    rows = starts[:, None] + first + np.arange(part)
    masks = (rows < len(split)).astype(np.float32)
    rows = np.minimum(rows, len(split) - 1)
    if isinstance(split.images, np.ndarray):
        batches = ({"image": split.images[each], "label": split.labels[each]} for each in rows)
    else:
        batches = read_ahead(split, rows)
    for batch, mask in zip(batches, masks, strict=True):
        yield {**batch, "mask": mask}


def _part_of(batch_size: int, shard: tuple[int, int]) -> tuple[int, int]:
    """Where this shard's part of a batch begins, and its size."""
    index, count = shard
    if not 0 <= index < count:
        raise ValueError(f"shard={shard} must be (i, n) with 0 <= i < n")
    if batch_size % count:
        raise ValueError(
            f"{batch_size} images a batch cannot be shared by {count} processes: choose a batch "
            f"size that {count} divides"
        )
    part = batch_size // count
    return index * part, part


class _Upcoming(Sequence):
    """The rows of each batch from a position on; to grain, a list without end."""

    def __init__(self, batches: TrainBatches, position: int):
        self.batches, self.position = batches, position

    def __len__(self):
        return 2**62

    def __getitem__(self, i):
        return self.batches.rows(self.position + i)


def read_ahead(split: Split, rows_of_batches: Sequence) -> Iterator[dict]:
    """Batches of these rows, decoded by threads while the device computes.

    A thread makes a whole batch: handed over image by image, small ones take a third longer.
    """
    import grain

    def batch(rows):
        return {"image": split.images[rows], "label": split.labels[rows]}

    threads = os.cpu_count() or 1
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 2)
    return iter(grain.MapDataset.source(rows_of_batches).map(batch).to_iter_dataset(options))


def choose_loader(split: Split) -> str:
    """Where to draw training batches from: the device if the images fit there, else memory."""
    if not isinstance(split.images, np.ndarray):
        return "stream"
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return "memory"  # the device's memory is this one
    memory = device.memory_stats() or {}
    free = memory.get("bytes_limit", 0) - memory.get("bytes_in_use", 0)
    return "device" if split.images.nbytes <= free / 4 else "memory"
