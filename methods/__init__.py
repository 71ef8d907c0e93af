"""One file per training method; `bench/registry.py` names them."""
