"""medjax: distributed training with heterogeneous data, simulated in JAX.

All n workers take a step in one jitted program. Everything after their gradients is an optax chain
over stacked updates, leaves `(n, *shape)`, in the order of the protocol: worker, server.
"""

from medjax import algorithms as algorithms
from medjax import attacks as attacks
from medjax import compressors as compressors
from medjax import mixing as mixing
from medjax import noise as noise
from medjax import objectives as objectives
from medjax import optimizers as optimizers
from medjax import partition as partition
from medjax import rules as rules
from medjax import servers as servers
from medjax import sharding as sharding
from medjax import theory as theory
from medjax import topologies as topologies
from medjax import training as training
from medjax import workers as workers
from medjax._engine.random import MaybeKey as MaybeKey
from medjax._engine.random import Seed as Seed
from medjax.attacks import AttackState as AttackState
from medjax.attacks import attack as attack
from medjax.compressors import compress as compress
from medjax.compressors import error_feedback as error_feedback
from medjax.mixing import mix as mix
from medjax.noise import AdaptiveScale as AdaptiveScale
from medjax.noise import PerturbState as PerturbState
from medjax.noise import adaptive_scale as adaptive_scale
from medjax.noise import noisy_sign as noisy_sign
from medjax.noise import perturb as perturb
from medjax.optimizers import mean_sgd as mean_sgd
from medjax.optimizers import median_sgd as median_sgd
from medjax.optimizers import noisy_median_sgd as noisy_median_sgd
from medjax.optimizers import noisy_sign_sgd as noisy_sign_sgd
from medjax.optimizers import sign_sgd as sign_sgd
from medjax.partition import WorkerData as WorkerData
from medjax.partition import stack_workers as stack_workers
from medjax.rules import AggregateState as AggregateState
from medjax.rules import aggregate as aggregate
from medjax.training import MultitaskResult as MultitaskResult
from medjax.training import Result as Result
from medjax.training import Simulation as Simulation
from medjax.training import SimulationState as SimulationState
from medjax.training import multitask as multitask
from medjax.training import simulate as simulate
from medjax.training import simulation as simulation
from medjax.workers import per_worker as per_worker
from medjax.workers import worker_momentum as worker_momentum

__version__ = "0.1.0"
