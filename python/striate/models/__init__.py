"""Networks from papers."""

from striate.models.catalog import CATALOG, Entry, build, names
from striate.models.lenet import LeNet
from striate.models.plain import Plain, SmallVGG

__all__ = ["CATALOG", "Entry", "LeNet", "Plain", "SmallVGG", "build", "names"]
