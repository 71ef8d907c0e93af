"""One file per training method; `bench/core/registry.py` names them."""
