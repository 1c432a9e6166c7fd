"""A small transformer that predicts the next character, in flax."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

_POSITIONS = nn.initializers.normal(0.02)


class Transformer(nn.Module):
    """A decoder of two layers, width 64, with four heads each (Vaswani et al., 2017).

    Embedded characters plus learned positions; in each layer x ← x + attention(norm(x)) and
    x ← x + mlp(norm(x)), normalised first (Xiong et al., 2020); a last norm, and a linear layer. No
    dropout. For 26 characters, in windows of 32, 105,498 parameters.
    """

    num_classes: int
    width: int = 64
    heads: int = 4
    layers: int = 2

    @nn.compact
    def __call__(self, characters: Int[Array, "B T"]) -> Float[Array, "B T K"]:
        """Return the logits of the character after each, from the characters up to there alone."""
        # A product, as a look-up's gradient would be a scatter for every worker, slow on the CPU.
        x = nn.Dense(self.width, use_bias=False)(jax.nn.one_hot(characters, self.num_classes))
        x += self.param("positions", _POSITIONS, (characters.shape[1], self.width))[None]
        for _ in range(self.layers):
            x += Attention(self.heads)(nn.LayerNorm()(x))
            hidden = nn.relu(nn.Dense(4 * self.width)(nn.LayerNorm()(x)))
            x += nn.Dense(self.width)(hidden)
        return nn.Dense(self.num_classes)(nn.LayerNorm()(x))


class Attention(nn.Module):
    """Causal self-attention: at t, Σ_{s ≤ t} softmax_s(q_t · k_s / √(D/H)) v_s in each head."""

    heads: int

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Return the heads side by side, through a linear layer."""
        length, width = x.shape[1:]
        if width % self.heads:
            raise ValueError(f"width {width} isn't a multiple of heads, {self.heads}")
        size = width // self.heads
        joint = nn.Dense(3 * width)(x).reshape(*x.shape[:2], 3, self.heads, size)
        q, k, v = (joint[:, :, i] for i in range(3))
        scores = jnp.einsum("bthd,bshd->bhts", q, k) / size**0.5
        past = jnp.tril(jnp.ones((length, length), bool))
        weights = jax.nn.softmax(jnp.where(past, scores, -jnp.inf))
        mixed = jnp.einsum("bhts,bshd->bthd", weights, v)
        return nn.Dense(width)(mixed.reshape(x.shape))
