"""Training loops: `simulate` trains one common model, `multitask` a model for each worker."""

from medjax.training.multitask import MultitaskResult as MultitaskResult
from medjax.training.multitask import multitask as multitask
from medjax.training.simulate import Result as Result
from medjax.training.simulate import Simulation as Simulation
from medjax.training.simulate import SimulationState as SimulationState
from medjax.training.simulate import simulate as simulate
from medjax.training.simulate import simulation as simulation
