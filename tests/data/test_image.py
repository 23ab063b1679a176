"""Pictures and folders of pictures."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from striate.data import image_folder, image_folder_splits, read_image

Image = pytest.importorskip("PIL.Image")


def save(path: Path, colour: object = 0, *, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> Path:
    """Write a picture of one colour; size is (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size[::-1], colour).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make three classes, in an order that creation does not follow, with files to pass over."""
    for label, name in ((2, "zebra"), (0, "ant"), (1, "cow")):
        for i in range(4):
            save(tmp_path / name / f"{i}.png", (label * 10 + i, 0, 200))
    (tmp_path / "ant" / "notes.txt").write_text("not an image")
    (tmp_path / "ant" / ".hidden.png").write_text("not an image")
    (tmp_path / ".cache").mkdir()
    return tmp_path


def test_image_folder_is_sorted(folder: Path) -> None:
    split = image_folder(folder)
    assert split.classes == ("ant", "cow", "zebra")
    assert split.images.shape == (12, 6, 4, 3)
    assert split.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert split.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]
    assert split.images[0, 0, 0].tolist() == [0, 0, 200]


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPG", ".png"])
def test_image_folder_suffixes(folder: Path, suffix: str) -> None:
    save(folder / "ant" / f"9{suffix}", (250, 250, 250))
    assert image_folder(folder).images[4].min() > 240


def test_image_folder_takes_the_most_common_size(folder: Path) -> None:
    save(folder / "cow" / "big.png", (1, 2, 3), size=(50, 60))
    assert image_folder(folder).images.shape == (13, 6, 4, 3)
    assert image_folder(folder, size=8).images.shape == (13, 8, 8, 3)
    assert image_folder(folder, size=(5, 7)).images.shape == (13, 5, 7, 3)


def test_image_folder_shrinks_camera_pictures(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / name / "1.png", size=(300, 400))
    assert image_folder(tmp_path).images.shape == (2, 96, 128, 3)
    assert image_folder(tmp_path, size=(300, 400)).images.shape == (2, 300, 400, 3)


def test_image_folder_channels(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / name / "1.png", 77, mode="L")
    assert image_folder(tmp_path).images.shape == (2, 6, 4, 1)
    assert image_folder(tmp_path, channels=3).images[0, 0, 0].tolist() == [77, 77, 77]
    save(tmp_path / "a" / "2.png", (255, 0, 0))
    assert image_folder(tmp_path).images.shape == (3, 6, 4, 3)
    assert image_folder(tmp_path, channels=1).images[1, 0, 0].tolist() == [76]  # 0.299 · 255


def test_read_image_keeps_proportions(tmp_path: Path) -> None:
    # The middle of a wide picture is white; a square cut from the centre shows nothing else.
    pixels = np.zeros((10, 30), np.uint8)
    pixels[:, 7:23] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert read_image(tmp_path / "wide.png", size=5).min() == 255
    assert read_image(tmp_path / "wide.png").shape == (10, 30, 1)


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK", "1", "LA"])
def test_read_image_modes(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("picture.jpg" if mode == "CMYK" else "picture.png")
    Image.new("RGB", (4, 6), (255, 255, 255)).convert(mode).save(path)
    assert read_image(path, channels=3).tolist() == np.full((6, 4, 3), 255).tolist()


def test_read_image_scales_16_bit_grey(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), 0x8123, np.uint16)).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png").tolist() == [[[0x81]] * 2] * 2


def test_read_image_turns_as_the_camera_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter to see it upright
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 4)).save(tmp_path / name / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "a" / "turned.jpg").shape == (8, 4, 3)
    assert image_folder(tmp_path).images.shape == (2, 8, 4, 3)


@pytest.mark.parametrize("given_size", [None, 8])
def test_image_folder_names_unreadable_images(folder: Path, given_size: int | None) -> None:
    size = {} if given_size is None else {"size": given_size, "channels": 3}
    whole = save(folder / "ant" / "large.png", size=(200, 200)).read_bytes()
    (folder / "ant" / "text.png").write_text("not an image")
    (folder / "cow" / "empty.jpg").touch()
    with pytest.raises(ValueError, match=r"expected readable images in .*ant/text\.png .*cow/empty\.jpg") as caught:
        image_folder(folder, **size)
    assert "\n" not in str(caught.value)
    (folder / "ant" / "text.png").write_bytes(whole[: len(whole) // 2])
    (folder / "cow" / "empty.jpg").unlink()
    with pytest.raises(ValueError, match=r"got .*ant/text\.png .*; repair or remove it"):
        image_folder(folder, **size)
    for i in range(5):
        (folder / "ant" / f"bad{i}.png").touch()
    with pytest.raises(ValueError, match=r"bad0\.png.*and 3 more"):
        image_folder(folder, **size)


def test_image_folder_refuses(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"got .*missing, which does not exist"):
        image_folder(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match="which is not a folder"):
        image_folder(save(tmp_path / "file.png"))
    with pytest.raises(ValueError, match=r"at least two classes in .*, got none"):
        image_folder(tmp_path)
    save(tmp_path / "cat" / "1.png")
    with pytest.raises(ValueError, match=r"at least two classes in .*, got only 'cat'"):
        image_folder(tmp_path)
    (tmp_path / "dog").mkdir()
    with pytest.raises(ValueError, match=r"in every class folder of .*, got none in 'dog'"):
        image_folder(tmp_path)
    with pytest.raises(ValueError, match=r"image_folder: expected a positive height and width, got size=0"):
        image_folder(tmp_path, size=0)
    with pytest.raises(ValueError, match=r"image_folder: expected channels 1 \(grey\) or 3 \(colour\), got 4"):
        image_folder(tmp_path, channels=4)


def test_image_folder_with_known_classes(folder: Path) -> None:
    for name in ("ant", "cow"):
        for i in range(1, 4):
            (folder / name / f"{i}.png").unlink()
    split = image_folder(folder, classes=("zebra", "cow", "bee", "ant"))
    assert split.classes == ("zebra", "cow", "bee", "ant")
    assert split.labels.tolist() == [3, 1, 0, 0, 0, 0]
    with pytest.raises(ValueError, match="named after the classes ant, cow, got zebra"):
        image_folder(folder, classes=("ant", "cow"))


def test_image_folder_splits(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    train, test = image_folder_splits(folder, test_fraction=0.25, seed=1)
    assert train.counts().tolist() == [3, 3, 3]
    assert test.counts().tolist() == [1, 1, 1]
    divided = tmp_path_factory.mktemp("divided")
    for part, n in (("train", 3), ("test", 2)):
        for name in ("a", "b"):
            for i in range(n):
                save(divided / part / name / f"{i}.png", size=(6, 4) if part == "train" else (12, 8))
    train, test = image_folder_splits(divided)
    assert train.counts().tolist() == [3, 3]
    assert test.images.shape == (4, 6, 4, 3)


def test_read_image_refuses(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"read_image: expected an image file, got .*no.png"):
        read_image(tmp_path / "no.png")
    (tmp_path / "bad.png").write_text("text")
    with pytest.raises(ValueError, match=r"read_image: expected a readable image, got .*bad.png"):
        read_image(tmp_path / "bad.png")


def test_missing_pillow_names_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ModuleNotFoundError, match=r"run pip install 'striate\[app\]'"):
        image_folder(folder)
