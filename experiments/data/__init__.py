"""Images to classify and text to predict, as plain numpy arrays."""

from experiments.data.idx import IdxFiles as IdxFiles
from experiments.data.idx import find_idx as find_idx
from experiments.data.idx import read_idx as read_idx
from experiments.data.sources import SOURCES as SOURCES
from experiments.data.sources import Dataset as Dataset
from experiments.data.sources import Inputs as Inputs
from experiments.data.sources import load as load
from experiments.data.validation import hold_out as hold_out
