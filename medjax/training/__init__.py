"""Training loops: `simulate` trains one common model, `multitask` a model for each worker.

With a decentralised algorithm `simulate` trains a model at each node of a graph.
"""

from medjax.training._multitask import MultitaskResult as MultitaskResult
from medjax.training._multitask import multitask as multitask
from medjax.training._simulate import Result as Result
from medjax.training._simulate import Simulation as Simulation
from medjax.training._simulate import SimulationState as SimulationState
from medjax.training._simulate import simulate as simulate
from medjax.training._simulate import simulation as simulation
