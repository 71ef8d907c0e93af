"""lowrank-bench: how good a low-rank training method is, how few parameters it needs, what rank it really uses."""

__version__ = "0.1.0"
