"""Fashion-MNIST from four places, the embedded slice, and held-out splits."""

from __future__ import annotations

import gzip
import io
import struct
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from striate.data import Split, embedded, fashion_mnist, hold_out
from striate.data import datasets as module

NAMES = tuple(module._FASHION_MNIST_SHA256)


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """Encode an array in the idx format."""
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def small_files() -> dict[str, bytes]:
    """Make four idx files: 20 + 10 images of 28×28."""
    rng = np.random.default_rng(0)
    files = {}
    for part, n in (("train", 20), ("t10k", 10)):
        files[f"{part}-images-idx3-ubyte"] = idx_bytes(rng.integers(0, 256, (n, 28, 28)).astype(np.uint8))
        files[f"{part}-labels-idx1-ubyte"] = idx_bytes((np.arange(n) % 10).astype(np.uint8))
    return files


def write(folder: Path, files: dict[str, bytes], *, packed: bool = False) -> Path:
    """Write files, gzipped or not."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / (f"{name}.gz" if packed else name)).write_bytes(
            gzip.compress(content, mtime=0) if packed else content
        )
    return folder


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point the cache and Debian's folder to places that do not exist, and forbid the network."""

    def refuse(url: str, timeout: float) -> None:
        raise urllib.error.URLError("no network here")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_FASHION_MNIST_DEBIAN", tmp_path / "debian")
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return tmp_path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", ["root", "cache/striate/fashion-mnist", "debian"])
def test_fashion_mnist_found(nowhere: Path, place: str, packed: bool) -> None:
    write(nowhere / place, small_files(), packed=packed)
    train, test = fashion_mnist(nowhere / "root" if place == "root" else None)
    assert train.images.shape == (20, 28, 28, 1)
    assert test.labels.tolist() == list(range(10))
    assert train.classes == test.classes == module.FASHION_MNIST_CLASSES
    raw = small_files()["train-images-idx3-ubyte"][16:]
    assert train.images.tobytes() == raw


def test_fashion_mnist_default_cache_is_under_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for unusable in (None, "relative/path"):
        if unusable is None:
            monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        else:
            monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert module._cache_folder() == tmp_path / ".cache" / "striate"


@pytest.mark.skipif(not Path("/usr/share/datasets/fashion-mnist").is_dir(), reason="needs dataset-fashion-mnist")
def test_fashion_mnist_of_debian_has_the_official_content() -> None:
    import hashlib

    train, test = fashion_mnist(download=False)
    assert (len(train), len(test)) == (60_000, 10_000)
    assert set(train.counts()) == {6_000}
    assert set(test.counts()) == {1_000}
    content = idx_bytes(test.images[..., 0])
    assert hashlib.sha256(content).hexdigest() == module._FASHION_MNIST_SHA256["t10k-images-idx3-ubyte"]


def test_fashion_mnist_missing_says_what_to_do(nowhere: Path) -> None:
    with pytest.raises(FileNotFoundError, match="apt-get install dataset-fashion-mnist") as caught:
        fashion_mnist()
    text = str(caught.value)
    assert "no network here" in text
    assert str(nowhere / "debian") in text
    assert "\n" not in text
    files = small_files()
    del files["t10k-labels-idx1-ubyte"]
    root = write(nowhere / "root", files)
    with pytest.raises(FileNotFoundError, match=r"expected t10k-labels-idx1-ubyte \(plain or .gz\) in .*; allow the"):
        fashion_mnist(root, download=False)


def test_fashion_mnist_download(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    files = small_files()
    asked = []

    def serve(url: str, timeout: float) -> io.BytesIO:
        asked.append(url)
        return io.BytesIO(gzip.compress(files[url.rsplit("/", 1)[1].removesuffix(".gz")]))

    monkeypatch.setattr(urllib.request, "urlopen", serve)
    with pytest.raises(FileNotFoundError, match="content with SHA-256"):
        fashion_mnist()
    cache = nowhere / "cache" / "striate" / "fashion-mnist"
    assert not cache.exists() or not list(cache.iterdir())

    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(module, "_FASHION_MNIST_SHA256", sums)
    asked.clear()
    train, _ = fashion_mnist()
    assert len(train) == 20
    assert len(asked) == 4
    assert sorted(path.name for path in cache.iterdir()) == sorted(f"{name}.gz" for name in NAMES)
    fashion_mnist()
    assert len(asked) == 4


@pytest.mark.parametrize("served", [b"", b"<html>404</html>", gzip.compress(b"x" * 1000, mtime=0)[:-9]])
def test_fashion_mnist_download_damaged(nowhere: Path, monkeypatch: pytest.MonkeyPatch, served: bytes) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: io.BytesIO(served))
    with pytest.raises(FileNotFoundError, match=r"the download failed .*; run `apt-get"):
        fashion_mnist(nowhere / "root")
    assert not (nowhere / "root").exists() or not list((nowhere / "root").iterdir())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c[:-1], r"expected 15680 bytes of values for shape \(20, 28, 28\), got 15679 in .*train-images"),
        (lambda c: c + b"\0", "expected 15680 bytes of values .* got 15681 in .*train-images"),
        (lambda c: c[:10], "expected a header of 16 bytes, got 10 bytes in .*train-images"),
        (lambda c: b"", "got nothing in .*train-images"),
        (lambda c: c[:3] + b"\1" + c[4:], "3 axes .first bytes 00000803., got 00000801 in .*train-images"),
        (lambda c: b"PNG!" + c[4:], "got 504e4721 in .*train-images"),
        (lambda c: gzip.compress(c, mtime=0)[:-100], "expected a whole gzip file, got .*train-images.* is damaged"),
        (lambda c: c[:4] + b"\xff" * 12 + c[16:], "got 15680 in .*train-images"),
    ],
)
def test_read_idx_refuses(tmp_path: Path, damage: object, message: str) -> None:
    files = small_files()
    files["train-images-idx3-ubyte"] = damage(files["train-images-idx3-ubyte"])  # type: ignore[operator]
    with pytest.raises(ValueError, match=message):
        fashion_mnist(write(tmp_path, files))


def test_fashion_mnist_refuses_other_counts(tmp_path: Path) -> None:
    files = small_files()
    files["train-labels-idx1-ubyte"] = idx_bytes(np.zeros(19, np.uint8))
    with pytest.raises(ValueError, match=r"as many labels as the 20 images of .*, got 19 in .*train-labels"):
        fashion_mnist(write(tmp_path, files))
    files["train-labels-idx1-ubyte"] = idx_bytes(np.full(20, 10, np.uint8))
    with pytest.raises(ValueError, match=r"labels from 0 to 9, got 10 in .*train-labels"):
        fashion_mnist(write(tmp_path, files))


def test_embedded_is_balanced_and_licensed() -> None:
    train, test = embedded()
    assert train.images.shape == (6_000, 28, 28, 1)
    assert test.images.shape == (1_000, 28, 28, 1)
    assert set(train.counts()) == {600}
    assert set(test.counts()) == {100}
    folder = module._EMBEDDED.parent
    assert "Zalando" in (folder / "LICENSE-fashion-mnist.txt").read_text(encoding="utf-8")
    assert module._EMBEDDED.stat().st_size < 3_300_000


@pytest.mark.skipif(not Path("/usr/share/datasets/fashion-mnist").is_dir(), reason="needs dataset-fashion-mnist")
def test_embedded_comes_from_fashion_mnist() -> None:
    for part, whole in zip(embedded(), fashion_mnist(download=False), strict=True):
        known = {(image.tobytes(), int(label)) for image, label in zip(whole.images, whole.labels, strict=True)}
        assert all(
            (image.tobytes(), int(label)) in known for image, label in zip(part.images, part.labels, strict=True)
        )


def ramp(*counts: int) -> Split:
    """Make a Split whose images hold their own position."""
    labels = np.repeat(np.arange(len(counts)), counts)
    labels = labels[np.random.default_rng(0).permutation(len(labels))]
    images = np.arange(len(labels)).astype(np.uint8)[:, None, None, None]
    return Split(images, labels, tuple(f"class {c}" for c in range(len(counts))))


def test_hold_out_is_stratified_and_a_partition() -> None:
    split = ramp(50, 20, 2, 0)
    kept, held = hold_out(split, 0.1, seed=3)
    assert held.counts().tolist() == [5, 2, 1, 0]
    both = np.concatenate([kept.images, held.images]).ravel()
    assert sorted(both) == list(range(72))
    for part in (kept, held):
        positions = part.images.ravel()
        assert np.all(np.diff(positions.astype(int)) > 0)
        assert np.array_equal(part.labels, split.labels[positions])


def test_hold_out_is_seeded() -> None:
    split = ramp(50, 50)
    first, again, other = (hold_out(split, 0.2, seed=s)[1].images for s in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_hold_out_refuses() -> None:
    with pytest.raises(ValueError, match="hold_out: expected a fraction between 0 and 1, got 1"):
        hold_out(ramp(5, 5), 1)
    with pytest.raises(ValueError, match="expected at least 2 images of class 'class 1', got 1"):
        hold_out(ramp(5, 1), 0.5)


def test_shuffled_is_a_fixed_permutation() -> None:
    # The stream of Philox is part of what a resumed run relies on, so the values are pinned.
    assert module.shuffled(8, 0, 0).tolist() == [0, 2, 1, 5, 4, 3, 6, 7]
    assert sorted(module.shuffled(1000, -5, 2)) == list(range(1000))
    assert module.shuffled(0, 1).tolist() == []


def test_split_refuses() -> None:
    images, labels = np.zeros((2, 3, 3, 1), np.uint8), np.array([0, 1])
    with pytest.raises(ValueError, match=r"dtype uint8 and shape \(N, H, W, C\), got float64 \(2, 3, 3, 1\)"):
        Split(images.astype(float), labels, ("a", "b"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"one int64 label for each of 2 images, got int64 \(1,\)"):
        Split(images, labels[:1], ("a", "b"))
    with pytest.raises(ValueError, match="labels from 0 to 0, got 0 to 1"):
        Split(images, labels, ("a",))
