"""How examples are run: without a deadline for one, because a busy machine is no broken promise."""

from hypothesis import settings

settings.register_profile("worker", deadline=None)
settings.load_profile("worker")
