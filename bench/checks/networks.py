"""Which networks and tasks a method is checked on."""

from __future__ import annotations

from bench.core import registry

SMALL = {"text": "bert", "image": "vit", "vector": "mlp"}
"""Kind of input → the network that is built for it."""
TASKS = {"text": "glue/rte", "image": "digits", "vector": "synthetic/regression"}
"""Kind of input → the task, whose data need no download."""


def tasks_of(method: str, backbone: str, *, small: bool) -> list[str]:
    """Return the tasks that a method is tried on with a network: those whose inputs both may read."""
    needs = registry.load_config("methods", method).needs
    return [task for kind, task in TASKS.items() if kind in needs and (not small or SMALL[kind] == backbone)]
