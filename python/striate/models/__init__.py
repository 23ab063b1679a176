"""Networks from papers; names, arguments and state_dict keys are torchvision's where it has the network."""

from striate.models.catalog import CATALOG, Entry, build, names
from striate.models.cifar_resnet import *  # noqa: F403
from striate.models.cifar_resnet import __all__ as _cifar_resnet
from striate.models.convnext import *  # noqa: F403
from striate.models.convnext import __all__ as _convnext
from striate.models.deeplab import *  # noqa: F403
from striate.models.deeplab import __all__ as _deeplab
from striate.models.densenet import *  # noqa: F403
from striate.models.densenet import __all__ as _densenet
from striate.models.efficientnet import *  # noqa: F403
from striate.models.efficientnet import __all__ as _efficientnet
from striate.models.googlenet import *  # noqa: F403
from striate.models.googlenet import __all__ as _googlenet
from striate.models.inception import *  # noqa: F403
from striate.models.inception import __all__ as _inception
from striate.models.lenet import LeNet
from striate.models.mobilenet import MobileNetV2, MobileNetV3, mobilenet_v2, mobilenet_v3_large, mobilenet_v3_small
from striate.models.plain import Plain, SmallVGG
from striate.models.resnet import *  # noqa: F403
from striate.models.resnet import __all__ as _resnet
from striate.models.shufflenet import *  # noqa: F403
from striate.models.shufflenet import __all__ as _shufflenet
from striate.models.squeezenet import *  # noqa: F403
from striate.models.squeezenet import __all__ as _squeezenet
from striate.models.unet import *  # noqa: F403
from striate.models.unet import __all__ as _unet
from striate.models.vgg import *  # noqa: F403
from striate.models.vgg import __all__ as _vgg
from striate.models.yolo import *  # noqa: F403
from striate.models.yolo import __all__ as _yolo

__all__ = [
    "CATALOG",
    "Entry",
    "LeNet",
    "MobileNetV2",
    "MobileNetV3",
    "Plain",
    "SmallVGG",
    "build",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "names",
    *_cifar_resnet,
    *_convnext,
    *_deeplab,
    *_densenet,
    *_efficientnet,
    *_googlenet,
    *_inception,
    *_resnet,
    *_shufflenet,
    *_squeezenet,
    *_unet,
    *_vgg,
    *_yolo,
]
