"""Worker stages: transforms of each worker's gradient, before it sends anything.

`per_worker` runs any optax transform with a state for each worker; `worker_momentum` is the usual
one. Noise (`medjax.noise`) and compression (`medjax.compressors`) come after it in a chain.
"""

from medjax.workers._per_worker import per_worker as per_worker
from medjax.workers._worker_momentum import worker_momentum as worker_momentum
