"""Compressors: what a worker sends in place of its vector, and how many bits that is.

A factory builds a compressor (impossible settings fail there), which `medjax.compress` puts into a
chain, or `medjax.error_feedback`. It takes one worker's update, an array or any pytree of such, to
what the server makes of the message:

>>> import jax.numpy as jnp
>>> from medjax import compressors
>>> update = jnp.array([3.0, -1.0, 0.5, 0.0])
>>> print(compressors.top_k(2).compress(update))
[ 3. -1.  0.  0.]
>>> compressors.top_k(2).bits(update)  # two of (32 bits + an index of 2)
68

All leaves together are one vector, but for `terngrad`, `random_mask` and `low_rank`, which work on
each tensor. Sums and norms are computed in float32 at least, and what comes out is in the leaf's
dtype. "Unbiased" is to rounding: to the leaf's dtype, and to that of float32 in a probability.
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
