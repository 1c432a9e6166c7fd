"""Server optimizers, which follow `aggregate` in a chain.

These are the usual ones, with the defaults of FedOpt (Reddi et al., 2021), and they compute in
float32 at least. Any other optax optimizer works as well.

With local steps they are FedOpt. Its workers send the difference of their parameters, which is -γ
times what they send here, where γ is `local_lr`. A step size of 1 in FedOpt (FedAvg with `sgd`)
therefore becomes γ here for `sgd` and `momentum`. For the other optimizers step sizes are the same,
and FedOpt's τ is γ times `eps`.

>>> from medjax import aggregate, rules
>>> tx = optax.chain(aggregate(rules.median()), adam(1e-2))
"""

from collections.abc import Callable, Mapping
from typing import Any

import optax
import optax.contrib
from jaxtyping import Array, Float

from medjax._engine import checks
from medjax._engine.precision import in_float32

Number = float | Float[Array, ""]
"""A setting that may be traced."""


def sgd(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """Gradient descent, x ← x - η u, where u is the aggregate.

    After local steps and a mean it is FedAvg (McMahan et al., 2017).

    Args:
        learning_rate: η, a number (perhaps traced) or an optax schedule.

    Raises:
        ValueError, TypeError: if η isn't a schedule or a number of at least 0.
    """
    return _optimizer(optax.sgd, learning_rate)


def momentum(
    learning_rate: optax.ScalarOrSchedule, momentum: Number = 0.9
) -> optax.GradientTransformation:
    """FedAvgM: m ← β m + u, x ← x - η m, from m = 0 (Hsu et al., 2019).

    Args:
        learning_rate: η, a number (perhaps traced) or an optax schedule.
        momentum: β in [0, 1); may be traced.

    Raises:
        ValueError, TypeError: if a setting isn't a number in its range.
    """
    checks.fraction("momentum", momentum, below_one=True)
    return _optimizer(optax.sgd, learning_rate, momentum=momentum)


def nesterov(
    learning_rate: optax.ScalarOrSchedule, momentum: Number = 0.9
) -> optax.GradientTransformation:
    """Nesterov's momentum: m ← β m + u, x ← x - η (u + β m), from m = 0 (Sutskever et al., 2013).

    Args:
        learning_rate: η, a number (perhaps traced) or an optax schedule.
        momentum: β in [0, 1); may be traced.

    Raises:
        ValueError, TypeError: if a setting isn't a number in its range.
    """
    checks.fraction("momentum", momentum, below_one=True)
    return _optimizer(optax.sgd, learning_rate, momentum=momentum, nesterov=True)


def adam(
    learning_rate: optax.ScalarOrSchedule, b1: Number = 0.9, b2: Number = 0.99, eps: Number = 1e-3
) -> optax.GradientTransformation:
    """FedAdam: m ← β₁m + (1 - β₁)u, v ← β₂v + (1 - β₂)u², x ← x - η m̂/(√v̂ + ε).

    This is Adam as defined by Kingma and Ba (2015): m = v = 0 at the start, m̂ = m/(1 - β₁ᵗ) and
    v̂ = v/(1 - β₂ᵗ). Reddi et al. (2021) start at v = τ² and omit this bias correction.

    Args:
        learning_rate: η, a number (perhaps traced) or an optax schedule.
        b1: β₁ in [0, 1); may be traced.
        b2: β₂ in [0, 1); may be traced.
        eps: ε > 0, which limits a coordinate's step; may be traced.

    Raises:
        ValueError, TypeError: if a setting isn't a number in its range.
    """
    _check_moments(b1, b2, eps)
    return _optimizer(optax.adam, learning_rate, b1=b1, b2=b2, eps=eps)


def amsgrad(
    learning_rate: optax.ScalarOrSchedule, b1: Number = 0.9, b2: Number = 0.99, eps: Number = 1e-3
) -> optax.GradientTransformation:
    """AMSGrad: `adam` with the largest v̂ so far in place of v̂ (Reddi et al., 2018).

        v̂ ← max(v̂, v/(1 - β₂ᵗ)), x ← x - η m̂/(√v̂ + ε).

    Args:
        learning_rate: η, a number (perhaps traced) or an optax schedule.
        b1: β₁ in [0, 1); may be traced.
        b2: β₂ in [0, 1); may be traced.
        eps: ε > 0; may be traced.

    Raises:
        ValueError, TypeError: if a setting isn't a number in its range.
    """
    _check_moments(b1, b2, eps)
    return _optimizer(optax.amsgrad, learning_rate, b1=b1, b2=b2, eps=eps)


def yogi(
    learning_rate: optax.ScalarOrSchedule, b1: Number = 0.9, b2: Number = 0.99, eps: Number = 1e-3
) -> optax.GradientTransformation:
    """FedYogi: `adam` with v ← v - (1 - β₂) sign(v - u²) u² (Zaheer et al., 2018).

    Where the aggregates are small, v shrinks more slowly than Adam's. m and v start at 10⁻⁶.

    Args:
        learning_rate: η, a number (perhaps traced) or an optax schedule.
        b1: β₁ in [0, 1); may be traced.
        b2: β₂ in [0, 1); may be traced.
        eps: ε > 0; may be traced.

    Raises:
        ValueError, TypeError: if a setting isn't a number in its range.
    """
    _check_moments(b1, b2, eps)
    return _optimizer(optax.yogi, learning_rate, b1=b1, b2=b2, eps=eps)


def adagrad(
    learning_rate: optax.ScalarOrSchedule, eps: Number = 1e-3
) -> optax.GradientTransformation:
    """FedAdagrad: v ← v + u², x ← x - η u/√v, from v = ε².

    Due to Duchi et al. (2011). Reddi et al. (2021) divide by √v + τ, which is at most twice √v.

    Args:
        learning_rate: η, a number (perhaps traced) or an optax schedule.
        eps: ε > 0; may be traced.

    Raises:
        ValueError, TypeError: if a setting isn't a number in its range.
    """
    checks.real("eps", eps, minimum=0.0, exclusive=True)
    return _optimizer(optax.adagrad, learning_rate, initial_accumulator_value=eps**2, eps=0.0)


def lion(
    learning_rate: optax.ScalarOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.99,
    weight_decay: Number = 0.0,
) -> optax.GradientTransformation:
    """Lion: x ← x - η (sign(β₁ m + (1 - β₁) u) + λ x), m ← β₂ m + (1 - β₂) u (Chen et al., 2023).

    Args:
        learning_rate: η, a number (perhaps traced) or an optax schedule.
        b1: β₁ in [0, 1); may be traced.
        b2: β₂ in [0, 1); may be traced.
        weight_decay: λ ≥ 0; may be traced.

    Raises:
        ValueError, TypeError: if a setting isn't a number in its range.
    """
    checks.fraction("b1", b1, below_one=True)
    checks.fraction("b2", b2, below_one=True)
    checks.real("weight_decay", weight_decay, minimum=0.0)
    return _optimizer(optax.lion, learning_rate, b1=b1, b2=b2, weight_decay=weight_decay)


def muon(
    learning_rate: optax.ScalarOrSchedule, beta: Number = 0.95
) -> optax.GradientTransformation:
    """Muon: the momentum of each matrix is made nearly orthogonal (Jordan et al., 2024).

        m ← β m + (1 - β) u, x ← x - η √max(1, columns/rows) · orthogonal(β m̂ + (1 - β) û).

    By five steps of Newton and Schulz; hats are Adam's corrections. Parameters that aren't matrices
    get NAdam's steps, of β₁ = 0.9, β₂ = 0.999 and ε = 10⁻⁸.

    Args:
        learning_rate: η, a number (perhaps traced) or an optax schedule.
        beta: β in [0, 1); may be traced.

    Raises:
        ValueError, TypeError: if a setting isn't a number in its range.
    """
    checks.fraction("beta", beta, below_one=True)
    return _optimizer(optax.contrib.muon, learning_rate, beta=beta)


SERVERS: Mapping[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": nesterov,
    "adam": adam,
    "amsgrad": amsgrad,
    "yogi": yogi,
    "adagrad": adagrad,
    "lion": lion,
    "muon": muon,
}
"""The factory of each server optimizer, by name. Its first parameter is the step size."""


def _optimizer(
    make: Callable[..., optax.GradientTransformation],
    learning_rate: optax.ScalarOrSchedule,
    **settings: Any,
) -> optax.GradientTransformation:
    checks.step_size("learning_rate", learning_rate)
    return in_float32(make(learning_rate, **settings))


def _check_moments(b1: Number, b2: Number, eps: Number) -> None:
    checks.fraction("b1", b1, below_one=True)
    checks.fraction("b2", b2, below_one=True)
    checks.real("eps", eps, minimum=0.0, exclusive=True)
