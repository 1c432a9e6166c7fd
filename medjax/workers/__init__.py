"""Workers: what each computes in a round, and transforms of what it is about to send.

A `Procedure` is a round; with a server's chain it is an `Algorithm`, as `medjax.algorithms` has
them. `per_worker` runs any optax transform with a state for each worker; `worker_momentum` is the
usual one. Noise (`medjax.noise`) and compression (`medjax.compressors`) come after it in a chain.
"""

from medjax.workers._per_worker import per_worker as per_worker
from medjax.workers._procedure import Algorithm as Algorithm
from medjax.workers._procedure import Oracle as Oracle
from medjax.workers._procedure import Procedure as Procedure
from medjax.workers._procedure import Sent as Sent
from medjax.workers._worker_momentum import worker_momentum as worker_momentum
