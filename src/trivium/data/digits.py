"""Handwritten digits: MNIST's IDX files, and scikit-learn's small digits for when they are not at hand."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from trivium import randomness
from trivium.errors import TriviumError, counted

Digits = tuple[np.ndarray, np.ndarray]
"""Images ``[N, 784]`` from 0 to 1 (float32), with 1 for ink, and labels ``[N]`` (int64)."""

LARGEST = 200_000_000
"""Bytes of the largest IDX file that is read."""

SMALL_DIGITS = 1347, 450
"""scikit-learn's small digits to learn from, and to be tested on."""


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The bytes of an IDX file of ``dimensions`` dimensions.

    LeCun's format: two zero bytes, 8 for unsigned bytes, the number of dimensions; then each size as four bytes, the
    highest first; then the data. Raises :class:`TriviumError` that names the file and what is wrong with it. Nothing is
    allocated before the sizes are known to fit the file."""
    raw = unpacked(path)
    head = 4 + 4 * dimensions
    if len(raw) < head or raw[:2] != b"\0\0" or raw[2] != 8 or raw[3] != dimensions:
        raise TriviumError(
            f"{path}: not an IDX file of bytes in {counted(dimensions, 'dimension')} (it begins "
            f"with {raw[:4].hex(' ') or 'nothing'}; 00 00 08 {dimensions:02x} was expected)")
    sizes = [int.from_bytes(raw[4 + 4 * i:8 + 4 * i], "big") for i in range(dimensions)]
    expected = 1
    for size in sizes:
        expected *= size
    if expected != len(raw) - head:
        raise TriviumError(
            f"{path}: its head announces {' × '.join(map(str, sizes))} = {expected:,} bytes, but {len(raw) - head:,} "
            "follow; the file is cut short or damaged, fetch it again")
    return np.frombuffer(raw, np.uint8, offset=head).reshape(sizes)


def unpacked(path: Path) -> bytes:
    """The bytes of a file, gzipped or not. Raises :class:`TriviumError` for more than :data:`LARGEST`."""
    try:
        with open(path, "rb") as file:
            raw = file.read(LARGEST + 1)
        if raw[:2] == b"\x1f\x8b":
            with gzip.open(path) as packed:
                raw = packed.read(LARGEST + 1)
    except FileNotFoundError as error:
        raise TriviumError(f"{path}: no such file") from error
    except (OSError, EOFError, zlib.error) as error:
        raise TriviumError(f"{path}: cannot be read ({error})") from error
    if len(raw) > LARGEST:
        raise TriviumError(f"{path}: more than {LARGEST:,} bytes; MNIST's largest file has 47,040,016")
    return raw


def find(folder: Path, name: str) -> Path:
    """A file of MNIST in a folder, under either of the names in use, gzipped or not."""
    names = [form + suffix for form in (name, name.replace("-idx", ".idx")) for suffix in ("", ".gz")]
    found = next((folder / form for form in names if (folder / form).is_file()), None)
    if found is None:
        raise TriviumError(f"{folder}: {name} (or {name}.gz) is missing; MNIST has four files, train-* and t10k-*")
    return found


def read_mnist(folder: Path, part: str) -> Digits:
    """The digits of ``part``, ``train`` or ``t10k``. Raises :class:`TriviumError` for files that do not fit together,
    and for labels that are no digits."""
    places = find(folder, f"{part}-images-idx3-ubyte"), find(folder, f"{part}-labels-idx1-ubyte")
    images, labels = read_idx(places[0], 3), read_idx(places[1], 1)
    if len(images) != len(labels) or not len(images):
        raise TriviumError(
            f"{places[1]}: {len(labels):,} labels for {len(images):,} images; they must be as many, and at least one")
    if images.shape[1:] != (28, 28):
        raise TriviumError(f"{places[0]}: images of {images.shape[1]} × {images.shape[2]}; 28 × 28 was expected")
    wrong = np.flatnonzero(labels > 9)
    if len(wrong):
        raise TriviumError(f"{places[1]}: label {wrong[0] + 1} is {labels[wrong[0]]}; the labels are 0 to 9")
    return images.reshape(len(images), -1).astype(np.float32) / 255, labels.astype(np.int64)


def small_digits(seed: int) -> tuple[Digits, Digits]:
    """scikit-learn's 8 × 8 digits drawn as 28 × 28: those to learn from, and those to be tested on. Raises
    :class:`TriviumError` where scikit-learn is missing."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise TriviumError('digits: name a folder with MNIST\'s files, or install the small digits: '
                           'pip install "trivium[lessons]"') from error
    import torch.nn.functional as F
    from torch import tensor
    small, labels = load_digits(return_X_y=True)
    large = F.interpolate(tensor(small.reshape(-1, 1, 8, 8) / 16).float(), size=(20, 20), mode="bilinear")
    images = F.pad(large, (4, 4, 4, 4)).flatten(1).numpy()
    order = randomness.numpy(seed, "heldout").permutation(len(labels))
    learned, tested = order[:SMALL_DIGITS[0]], order[SMALL_DIGITS[0]:]
    return (images[learned], labels[learned]), (images[tested], labels[tested])
