"""Arithmetic: a run of a model's layers on this machine; ignorant of the network."""
