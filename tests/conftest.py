"""What holds for all tests."""

from hypothesis import HealthCheck, settings

# Nothing here is timed: on a busy machine, how long an example takes says nothing about the code.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
