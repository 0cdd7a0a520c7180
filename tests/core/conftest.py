"""Hypothesis without a deadline: the cores are shared, so wall time says nothing about the code."""

from hypothesis import settings

settings.register_profile("shared-cores", deadline=None)
settings.load_profile("shared-cores")
