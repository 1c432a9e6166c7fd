"""Hot loops. Nothing here is public: use `medjax.rules`, `medjax.noise` and the transforms."""
