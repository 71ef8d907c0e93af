"""Descriptions of methods, tasks, backbones and experiments, from the docstrings of their classes and Configs."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from typing import Any

from bench.config.options import Config, Option, options_of
from bench.core import registry
from bench.core.registry import PREFIXES, Kind

_PLACEHOLDERS = {"peft:": "TUNER", "runs:": "RUN", "timm:": "NAME"}
"""What follows a prefix, as lists show it."""
_FACTS: dict[Kind, tuple[str, ...]] = {
    "methods": ("learning_rate", "learning_rates", "scratch_learning_rate", "needs", "supervised", "allocates"),
    "tasks": ("members", "argument", "modality"),
    "experiments": ("place", "quick"),
}


@dataclass(frozen=True, kw_only=True)
class Description:
    """What is known of a name.

    Attributes:
        summary: the class's own `summary`, or else the first line of the docstring of the module of its subject.
        doc: the rest of that docstring, and that of the subject.
        subject: the Config of a method, the class of anything else; None where it cannot be imported.
        error: why it cannot be imported; empty where it can.
    """

    name: str
    summary: str = ""
    doc: str = ""
    options: tuple[Option, ...] = ()
    subject: Any = None
    error: str = ""


def describe(kind: Kind, name: str) -> Description:
    """Describe a registered name; what is wrong with the code of a third party is in `error`.

    Raises:
        UsageError: the name is not registered.
        EnvironmentProblem: it is a tuner of peft, and peft is not installed.
    """
    entry = registry.find(kind, name)
    if name not in registry.entries(kind) and kind == "methods":
        return _description(kind, name, registry.load_config(kind, name))
    return _describe(kind, name, entry)


def describe_prefixes(kind: Kind) -> list[Description]:
    """Describe every prefix of names, such as `peft:TUNER`."""
    prefixes = PREFIXES.get(kind, {})
    return [_describe(kind, f"{prefix}{_PLACEHOLDERS[prefix]}", entry) for prefix, entry in prefixes.items()]


def _describe(kind: Kind, name: str, entry: registry.Entry) -> Description:
    try:
        return _description(kind, name, registry.import_target(entry.config or entry.target))
    except Exception as error:  # the code of a third party may be wrong in any way, and the list must go on
        return Description(name=name, error=f"{entry.target}: {type(error).__name__}: {error}")


def _description(kind: Kind, name: str, owner: Any) -> Description:
    config: type[Config] = owner if issubclass(owner, Config) else owner.Config
    first, _, rest = inspect.cleandoc(sys.modules[owner.__module__].__doc__ or "").partition("\n")
    documented = [owner, config] if kind == "methods" and owner is not config else [owner]  # a method in a single file
    texts = [inspect.cleandoc(one.__doc__ or "") for one in documented]
    texts = [text for text in texts if not text.startswith(f"{config.__name__}(")]  # what dataclasses make up
    return Description(
        name=name,
        summary=getattr(owner, "summary", "") or first,
        doc="\n\n".join(filter(None, (rest.strip(), *texts))),
        options=tuple(options_of(config).values()),
        subject=config if kind == "methods" else owner,
    )


def facts(kind: Kind, found: Description) -> dict[str, object]:
    """Return what a plan must know of a name, for JSON; empty where it cannot be imported."""
    return {name: getattr(found.subject, name) for name in _FACTS.get(kind, ()) if found.subject is not None}
