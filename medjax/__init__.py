"""medjax: distributed training with heterogeneous data, simulated in JAX.

All n workers take a step in one jitted program; everything after their gradients is an optax chain
over stacked updates, leaves `(n, *shape)`, in the order of the protocol: worker, server.
"""

from medjax import attacks as attacks
from medjax import compressors as compressors
from medjax import mixing as mixing
from medjax import noise as noise
from medjax import objectives as objectives
from medjax import partition as partition
from medjax import rules as rules
from medjax import servers as servers
from medjax import sharding as sharding
from medjax import theory as theory
from medjax._aggregate import AggregateState as AggregateState
from medjax._aggregate import aggregate as aggregate
from medjax._alias import median_sgd as median_sgd
from medjax._alias import noisy_median_sgd as noisy_median_sgd
from medjax._alias import noisy_sign_sgd as noisy_sign_sgd
from medjax._alias import sgd as sgd
from medjax._alias import sign_sgd as sign_sgd
from medjax._attack import AttackState as AttackState
from medjax._attack import attack as attack
from medjax._compress import compress as compress
from medjax._compress import error_feedback as error_feedback
from medjax._mix import mix as mix
from medjax._multitask import MultitaskResult as MultitaskResult
from medjax._multitask import multitask as multitask
from medjax._noisy_sign import noisy_sign as noisy_sign
from medjax._per_worker import per_worker as per_worker
from medjax._perturb import AdaptiveScale as AdaptiveScale
from medjax._perturb import PerturbState as PerturbState
from medjax._perturb import adaptive_scale as adaptive_scale
from medjax._perturb import perturb as perturb
from medjax._simulate import Result as Result
from medjax._simulate import Simulation as Simulation
from medjax._simulate import SimulationState as SimulationState
from medjax._simulate import simulate as simulate
from medjax._simulate import simulation as simulation
from medjax._worker_data import WorkerData as WorkerData
from medjax._worker_data import stack_workers as stack_workers
from medjax._worker_momentum import worker_momentum as worker_momentum

__version__ = "0.1.0"
