"""Algorithms of the literature, each a function that returns what `simulate` takes.

    algorithm = medjax.algorithms.scaffold(local_steps=5, local_lr=0.1)
    run = medjax.simulate(objective, params, data, algorithm, num_steps=400, key=0)

An algorithm is a `medjax.workers.Procedure`, what each worker does between two messages, and a
server's chain (`medjax.workers.Algorithm`). What has local steps takes their number and length and
the server's step size; what has none takes `lr`. Whatever a worker keeps, a variate or a momentum,
stays with it while others take part. Without a server, each worker is a node of a graph with a
model of its own: `d_psgd(medjax.topologies.ring(8), lr=0.05)`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from medjax.algorithms._bits import communication as communication
from medjax.algorithms._decentralised import choco_sgd as choco_sgd
from medjax.algorithms._decentralised import clipped_gossip as clipped_gossip
from medjax.algorithms._decentralised import d_psgd as d_psgd
from medjax.algorithms._decentralised import gradient_tracking as gradient_tracking
from medjax.algorithms._delays import delayed_sgd as delayed_sgd
from medjax.algorithms._delays import dp_fedavg as dp_fedavg
from medjax.algorithms._delays import fedbuff as fedbuff
from medjax.algorithms._differences import dasha as dasha
from medjax.algorithms._differences import diana as diana
from medjax.algorithms._differences import ef21 as ef21
from medjax.algorithms._estimates import byz_vr_marina as byz_vr_marina
from medjax.algorithms._estimates import marina as marina
from medjax.algorithms._estimates import storm as storm
from medjax.algorithms._local import diloco as diloco
from medjax.algorithms._local import fedavg as fedavg
from medjax.algorithms._local import fednova as fednova
from medjax.algorithms._local import fedprox as fedprox
from medjax.algorithms._signs import distributed_lion as distributed_lion
from medjax.algorithms._signs import sign_fv as sign_fv
from medjax.algorithms._signs import signum as signum
from medjax.algorithms._signs import z_sign_fedavg as z_sign_fedavg
from medjax.algorithms._variates import feddyn as feddyn
from medjax.algorithms._variates import mime as mime
from medjax.algorithms._variates import mime_lite as mime_lite
from medjax.algorithms._variates import scaffold as scaffold

ALGORITHMS: Mapping[str, Callable[..., Any]] = {
    f.__name__: f
    for f in (
        *(fedavg, fedprox, scaffold, feddyn, fednova, mime, mime_lite, diloco),
        *(distributed_lion, signum, z_sign_fedavg, sign_fv),
        *(ef21, diana, marina, byz_vr_marina, dasha, storm),
        *(delayed_sgd, fedbuff, dp_fedavg),
        *(d_psgd, gradient_tracking, choco_sgd, clipped_gossip),
    )
}
"""The algorithms by name."""
