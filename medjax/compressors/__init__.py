"""Compressors: the message that a worker sends in place of its vector, and its length in bits.

A factory builds a compressor and rejects impossible settings. `medjax.compress` or
`medjax.error_feedback` puts it into a chain. A compressor maps one worker's update, an array or any
pytree of arrays, to the update that the server decodes from the message:

>>> import jax.numpy as jnp
>>> from medjax import compressors
>>> update = jnp.array([3.0, -1.0, 0.5, 0.0])
>>> print(compressors.top_k(2).compress(update))
[ 3. -1.  0.  0.]
>>> compressors.top_k(2).bits(update)  # 2 × (32 bits + an index of 2 bits)
68

`terngrad`, `random_mask` and `low_rank` work on each tensor separately; the others treat all leaves
together as one vector. Sums and norms are computed in float32 at least, and the output has the
leaf's dtype. "Unbiased" means up to rounding: of the output to the leaf's dtype, and of
probabilities to float32.
"""

from collections.abc import Callable, Mapping

from medjax.compressors._compressor import Bits as Bits
from medjax.compressors._compressor import Compressor as Compressor
from medjax.compressors._compressor import PlainCompressor as PlainCompressor
from medjax.compressors._compressor import communication as communication
from medjax.compressors._linear import low_rank as low_rank
from medjax.compressors._linear import rotation_quantization as rotation_quantization
from medjax.compressors._quantizers import qsgd as qsgd
from medjax.compressors._quantizers import terngrad as terngrad
from medjax.compressors._signs import scaled_sign as scaled_sign
from medjax.compressors._signs import sign as sign
from medjax.compressors._signs import stochastic_sign as stochastic_sign
from medjax.compressors._sparsifiers import random_k as random_k
from medjax.compressors._sparsifiers import random_mask as random_mask
from medjax.compressors._sparsifiers import top_k as top_k
from medjax.compressors._stage import compress as compress
from medjax.compressors._stage import error_feedback as error_feedback

COMPRESSORS: Mapping[str, Callable[..., Compressor]] = {
    "sign": sign,
    "scaled_sign": scaled_sign,
    "stochastic_sign": stochastic_sign,
    "qsgd": qsgd,
    "terngrad": terngrad,
    "top_k": top_k,
    "random_k": random_k,
    "random_mask": random_mask,
    "rotation_quantization": rotation_quantization,
    "low_rank": low_rank,
}
"""Every compressor's factory by its name."""
