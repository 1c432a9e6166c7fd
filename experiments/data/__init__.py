"""Image classification data sets as plain numpy arrays."""

from .idx import IdxFiles as IdxFiles
from .idx import find_idx as find_idx
from .idx import read_idx as read_idx
from .sources import SOURCES as SOURCES
from .sources import Dataset as Dataset
from .sources import load as load
