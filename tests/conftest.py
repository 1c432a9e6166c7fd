"""Settings that all tests share."""

from hypothesis import settings

# Compiling is slow and its time varies, so a deadline would say nothing; the examples are the same
# in every run, so that a failure can be repeated.
settings.register_profile("medjax", deadline=None, derandomize=True, database=None)
settings.load_profile("medjax")
