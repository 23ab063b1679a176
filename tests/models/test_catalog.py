"""Networks by name: arguments, sizes, refusals."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import striate
from striate import models


def test_names_by_task() -> None:
    assert set(models.names()) == {name for task in ("classify", "segment", "detect") for name in models.names(task)}
    assert models.names("segment") == ("unet", "deeplabv3_resnet50")
    assert models.names("detect") == ("yolo_csp",)


# VGG's linear layers alone cost seconds; tests/models/test_networks.py builds it once.
_LIGHT = [name for name in models.names() if models.CATALOG[name].n_parameters < 3e7]


@pytest.mark.parametrize("name", _LIGHT)
def test_number_of_classes_and_channels(name: str) -> None:
    entry = models.CATALOG[name]
    side = -(-max(entry.least_size, 2) // entry.size_multiple) * entry.size_multiple
    net = models.build(name, 5, in_channels=4, image_size=(side, side + entry.size_multiple)).eval()
    with striate.no_grad():
        y = net(striate.zeros(1, 4, side, side + entry.size_multiple))
    if entry.task == "detect":
        assert [scores.shape[1] for scores in y] == [30, 30, 30]
    else:
        assert tuple(y.shape)[:2] == (1, 5)


def test_small_networks_train_on_small_images() -> None:
    for name, size in itertools.product(("lenet", "plain-16", "small-vgg", "resnet20"), (12, 28)):
        net = models.build(name, 5, in_channels=3, image_size=(size, size + 1))
        assert net(striate.zeros(2, 3, size, size + 1)).shape == (2, 5)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (
            lambda: models.build("resnet", 5),
            r"models\.build: expected one of lenet, .*resnet50.*, got 'resnet'; choose a name of the catalog",
        ),
        (
            lambda: models.build("lenet", 5, image_size=(8, 8)),
            r"models\.build: expected images of at least 12×12 pixels for 'lenet', got 8×8; scale them up",
        ),
        (
            lambda: models.build("unet", image_size=(64, 72)),
            r"models\.build: expected images with sides that are multiples of 16 for 'unet', got 64×72; pad or scale",
        ),
        (lambda: models.LeNet(image_size=(8, 8)), r"LeNet: expected images of at least 12×12 pixels, got \(8, 8\)"),
        (
            lambda: models.BasicBlock(8, 8, groups=2),
            r"BasicBlock: expected groups=1, base_width=64 and dilation=1, got 2, 64 and 1; use Bottleneck",
        ),
        (
            lambda: models.resnet50(replace_stride_with_dilation=(True,)),
            r"ResNet: expected replace_stride_with_dilation as three bools, got \(True,\)",
        ),
        (
            lambda: models.ResNet(models.BasicBlock, (1, 1, 1, 1), stem="small"),  # type: ignore[arg-type]
            r"ResNet: expected stem 'imagenet' or 'cifar', got 'small'; choose one",
        ),
        (lambda: models.CifarResNet(21), r"CifarResNet: expected a depth of 6n \+ 2, got 21"),
        (lambda: models.WideResNet(27), r"WideResNet: expected a depth of 6n \+ 4, got 27"),
        (lambda: models.MobileNetV3("tiny"), r"MobileNetV3: expected size 'small' or 'large', got 'tiny'"),
        (lambda: models.UNet(levels=0), r"UNet: expected width and levels of at least 1, got 32 and 0; use 32 and 4"),
        (
            lambda: models.GoogLeNet(transform_input=True, in_channels=1),
            r"GoogLeNet: expected in_channels=3 with transform_input, got 1; pass transform_input=False",
        ),
    ],
)
def test_refusals(make: object, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()  # type: ignore[operator]


def test_auxiliary_classifiers_run_in_training_only() -> None:
    x = striate.zeros(2, 3, 33, 32)
    net = models.googlenet(4, aux_logits=True)
    y = net(x)
    assert isinstance(y, models.GoogLeNetOutputs)
    assert [tuple(scores.shape) for scores in y] == [(2, 4)] * 3
    assert tuple(net.eval()(x).shape) == (2, 4)
    net = models.inception_v3(4)
    y = net(striate.zeros(2, 3, 299, 299))
    assert isinstance(y, models.InceptionOutputs)
    assert [tuple(scores.shape) for scores in y] == [(2, 4)] * 2
    segmenter = models.deeplabv3_resnet50(4, aux_loss=True)
    z = segmenter(x)
    assert isinstance(z, models.DeepLabOutputs)
    assert tuple(z.aux.shape) == (2, 4, 33, 32)
    assert tuple(segmenter.eval()(x).shape) == (2, 4, 33, 32)


@pytest.mark.parametrize("build", [models.googlenet, models.inception_v3])
def test_images_are_brought_to_a_normalisation_of_its_own(build: Any) -> None:
    striate.manual_seed(0)
    net = build(3, aux_logits=False, transform_input=True).eval()
    plain = build(3, aux_logits=False).eval()
    plain.load_state_dict(net.state_dict())
    pixels = np.random.default_rng(0).uniform(0, 1, (1, 3, 80, 80)).astype(np.float32)
    mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with striate.no_grad():
        y = net(striate.tensor((pixels - mean) / std))
        z = plain(striate.tensor((pixels - np.float32(0.5)) / np.float32(0.5)))
    np.testing.assert_allclose(y.numpy(), z.numpy(), rtol=0, atol=1e-4 * np.abs(z.numpy()).max())


def test_zero_init_residual_starts_blocks_as_identities() -> None:
    net = models.ResNet(models.Bottleneck, (1, 2, 1, 1), 3, zero_init_residual=True)
    block = net.layer2[1].eval()
    x = striate.rand(1, 512, 3, 3)
    with striate.no_grad():
        assert block(x).tolist() == x.tolist()
