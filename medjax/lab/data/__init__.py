"""Images to classify and text to predict, as plain numpy arrays."""

from medjax.lab.data.dataset import Dataset as Dataset
from medjax.lab.data.dataset import Inputs as Inputs
from medjax.lab.data.dataset import checked as checked
from medjax.lab.data.idx import IdxFiles as IdxFiles
from medjax.lab.data.idx import find_idx as find_idx
from medjax.lab.data.idx import read_idx as read_idx
from medjax.lab.data.sources import SOURCES as SOURCES
from medjax.lab.data.sources import load as load
from medjax.lab.data.validation import hold_out as hold_out
