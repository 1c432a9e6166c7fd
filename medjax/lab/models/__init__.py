"""Networks in flax."""
