"""One file per family of tasks; `bench/core/registry.py` names them."""
