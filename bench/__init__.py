"""lowrank-bench: how good a low-rank training method is, how few parameters it needs, what rank it really uses.

import bench

runs = bench.run(methods=["lora", "deeplora"], tasks="glue/rte", seeds=range(3))
print(runs.table())
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.runs import Runs, load, plan, run

__version__ = "0.1.0"
__all__ = ["Runs", "__version__", "load", "plan", "run"]


def __getattr__(name: str) -> Any:
    """Import the API when it is first used: `import bench` itself stays light."""
    if name in __all__:
        from bench import runs

        return getattr(runs, name)
    raise AttributeError(f"module 'bench' has no attribute '{name}'")
