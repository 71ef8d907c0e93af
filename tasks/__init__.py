"""One file per family of tasks; `bench/registry.py` names them."""
