"""What training on crops and on whole images share: decoded image files, samples or their errors, normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset

from harness.data.coco import ImageInfo
from harness.data.normaliser import Normaliser
from harness.data.reading import read_image
from harness.errors import DataError, HarnessError
from harness.method import PoseProtocol

__all__ = ["CACHE_BYTES", "DecodedImages", "sound"]

CACHE_BYTES = 2 << 30  # a set whose decoded images fit is decoded once, not every epoch
T = TypeVar("T")


class DecodedImages(TorchDataset[Any]):
    """Item (epoch, index) is `sample(epoch, index)`, or the HarnessError that it raised.

    All image files are decoded at once if they fit into `cache_bytes`. DataError when one is missing.
    """

    def __init__(
        self, folder: Path, images: Sequence[ImageInfo], protocol: PoseProtocol, cache_bytes: int = CACHE_BYTES
    ) -> None:
        self.protocol, self._folder = protocol, folder
        self._normalisers: dict[torch.device, Normaliser] = {}
        self._cache: dict[int, np.ndarray] = {}
        missing = [path for path in (folder / image.file for image in images) if not path.is_file()]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(images)} image files are missing",
                where=str(missing[0]),
                hint="`paretopose data check ROOT` lists what is wrong with a data set",
            )
        if sum(image.width * image.height * 3 for image in images) <= cache_bytes:
            with ThreadPoolExecutor(4) as pool:
                self._cache = dict(zip((image.id for image in images), pool.map(self._read, images)))

    def sample(self, epoch: int, index: int) -> Any:
        """Sample `index` as augmented in `epoch`."""
        raise NotImplementedError

    def __getitem__(self, place: tuple[int, int]) -> Any:
        try:
            return self.sample(*place)
        except HarnessError as error:
            return error

    def __getstate__(self) -> dict[str, object]:
        # where workers are not forked, each reads for itself
        return {**self.__dict__, "_cache": {}, "_normalisers": {}}

    def _read(self, image: ImageInfo) -> np.ndarray:
        cached = self._cache.get(image.id)
        if cached is not None:
            return cached
        return read_image(self._folder / image.file, (image.width, image.height))

    def _normaliser(self, device: torch.device) -> Normaliser:
        if device not in self._normalisers:
            self._normalisers[device] = Normaliser(self.protocol, device)
        return self._normalisers[device]


def sound(samples: Sequence[T | HarnessError]) -> list[T] | HarnessError:
    """The samples, or the first error among them."""
    rows: list[T] = []
    for sample in samples:
        if isinstance(sample, HarnessError):
            return sample
        rows.append(sample)
    return rows
