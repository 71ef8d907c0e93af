"""A request as a YAML file: written by `bench plan`, read by `bench run --plan`.

Every scalar is the text that stands there, which is then read as the flag of that name reads it. So YAML's own types
decide nothing: `1e-3` is a number where a number is wanted, and `no` a text where a text is.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

import yaml

from bench.config.flags import (
    ACCELERATORS,
    SOURCES,
    boolean,
    choice,
    count,
    course,
    listed,
    positive,
    seed,
    zero_or_more,
)
from bench.config.options import show
from bench.config.overrides import Given, Overrides, build_configs
from bench.core.errors import EnvironmentProblem, UsageError, did_you_mean
from bench.core.files import regular
from bench.harness.request import WIDEN, Request, make_request
from bench.records.spec import Precision, Track

MOST_BYTES = 2**20
HEADER = """\
# A grid of lowrank-bench. Train it with: bench run --plan FILE
# Keys are the flags of `bench run`. A list, [a, b], makes a run for each value. Relative paths start at the folder
# in which the command is given. bench_data takes the place of $BENCH_DATA; none: no folder.
"""
_EXAMPLE = "`bench plan --method lora --task glue` writes an example."

_NULLS = ("~", "null", "Null", "NULL")


class Key(NamedTuple):
    """A key: the argument of `make_request` that it gives, and what reads its texts; of `several` values, each."""

    argument: str
    read: Callable[[str], object]
    several: bool = False


KEYS: dict[str, Key] = {
    "method": Key("methods", str, several=True),
    "task": Key("tasks", str, several=True),
    "backbone": Key("backbones", str, several=True),
    "seeds": Key("seeds", seed, several=True),
    "set": Key("set", str),
    "data": Key("data", choice(*SOURCES)),
    "data_dir": Key("data_dir", str, several=True),
    "bench_data": Key("bench_data", str),
    "max_steps": Key("max_steps", count),
    "epochs": Key("epochs", positive),
    "train_samples": Key("train_samples", count),
    "batch_size": Key("batch_size", count),
    "evaluate": Key("evaluate", course),
    "lr": Key("lr", positive, several=True),
    "select": Key("select", str, several=True),
    "match_params": Key("match_params", str),
    "trials": Key("trials", count),
    "select_on": Key("select_on", str),
    "widen": Key("widen", zero_or_more),
    "out": Key("out", str),
    "track": Key("track", choice(*get_args(Track))),
    "accelerator": Key("accelerator", choice(*ACCELERATORS)),
    "devices": Key("devices", count),
    "precision": Key("precision", choice(*get_args(Precision))),
    "strict": Key("strict", boolean),
    "retry": Key("retry", boolean),
}


def write(request: Request) -> str:
    """Write a request as YAML, from which `read` makes an equal one; what has its default is left out."""
    content = yaml.dump(values(request), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return HEADER + content


def values(request: Request) -> dict[str, object]:
    """Return what `write` writes, as JSON values by key."""
    default, stated = _values(Request(methods=(), tasks=())), _values(request)
    return {key: value for key, value in stated.items() if value != default[key] or key == "bench_data"}


def _values(request: Request) -> dict[str, object]:
    data = request.data
    folders = [f"{name}={folder}" if name else str(folder) for name, folder in data.dirs]
    return {
        "method": [*request.methods],
        "task": [*request.tasks],
        "backbone": [*request.backbones],
        "seeds": [*request.seeds],
        "set": request.overrides.by_name(),
        "data": data.data,
        "data_dir": folders,
        "bench_data": str(data.parent or "none"),
        "max_steps": request.max_steps,
        "epochs": request.epochs,
        "train_samples": request.train_samples,
        "batch_size": request.batch_size,
        "evaluate": request.evaluate,
        "lr": [*request.lrs],
        "select": [*request.select],
        "match_params": request.match_params,
        "trials": request.trials,
        "select_on": request.select_on,
        "widen": None if request.widen == WIDEN else request.widen,
        "out": str(request.out),
        "track": request.track,
        "accelerator": request.accelerator,
        "devices": request.devices,
        "precision": request.precision,
        "strict": request.strict,
        "retry": request.retry,
    }


def read(path: Path, **given: Any) -> Request:
    """Read the request in a file, and check its names, keys and values; nothing is opened.

    Args:
        path: the file.
        given: arguments of `make_request` that take the place of the file's; those of `set` option by option.

    Raises:
        UsageError: it is no such file, or what it says is wrong as it would be in flags; the error names the file.
        EnvironmentProblem: it cannot be opened, or is too large.
    """
    stated = _arguments(path)
    if {"max_steps", "epochs"} & given.keys():
        stated = {name: value for name, value in stated.items() if name not in ("max_steps", "epochs")}
    where = f"{path} and what is given beside it" if given else str(path)
    try:
        settings = {**stated.pop("set", {}), **_settings(given.pop("set", ()))}
        request = make_request(**{**stated, **given}, set=settings)
        build_configs(request.overrides, methods=request.configured, tasks=request.families, backbones=request.openers)
    except UsageError as error:
        raise UsageError(f"{where}: {error.what}", error.known, error.todo) from error
    return request


def _settings(given: Mapping[str, Any] | Iterable[str]) -> dict[str, Given]:
    if isinstance(given, Mapping):
        return Overrides.of(cast("Mapping[str, Any]", given)).by_name()
    return Overrides.parse([*given]).by_name()


def _arguments(path: Path) -> dict[str, Any]:
    """Return the arguments of `make_request` that a file gives."""
    arguments: dict[str, Any] = {}
    for name, value in _load(path).items():
        if name not in KEYS:
            todo = f"{did_you_mean(name, KEYS)} {_EXAMPLE}".strip()
            raise UsageError(f"{path}: unknown key '{name}'", f"keys: {', '.join(KEYS)}", todo)
        key = KEYS[name]
        try:
            arguments[key.argument] = _settable(value) if name == "set" else _read(key, value, cuts=name != "data_dir")
        except ArgumentTypeError as error:
            what, *more = str(error).split("\n")
            raise UsageError(f"{path}: {name}: {what}", *more) from error
    return arguments


def _read(key: Key, value: object, *, cuts: bool) -> object:
    """Read the value of a key; a text of several values may have commas, as behind the flag, if it `cuts`."""
    if not key.several:
        if not isinstance(value, str):
            raise _wrong("it takes one value", "given: a list or a mapping", "Write it as KEY: VALUE.")
        return key.read(value)
    if isinstance(value, str):
        return listed(key.read)(value) if cuts else (key.read(value),)
    return tuple(key.read(text) for text in _texts(value))


def _settable(value: object) -> dict[str, Given]:
    if not isinstance(value, dict):
        raise _wrong("it is no mapping", "options by their names, one a line", "Write set: {method.rank: [4, 8]}.")
    options = cast("dict[str, object]", value)
    return {name: given if isinstance(given, str) else _texts(given) for name, given in options.items()}


def _texts(value: object) -> tuple[str, ...]:
    items = cast("list[object]", value) if isinstance(value, list) else []
    texts = [item for item in items if isinstance(item, str)]
    if not texts or len(texts) < len(items):
        raise _wrong(
            "it is neither a value nor a list of values", "such as 4 or [4, 8]", "Write it in one of these ways."
        )
    return tuple(texts)


def _wrong(what: str, known: str, todo: str) -> ArgumentTypeError:
    return ArgumentTypeError(f"{what}\n{known}\n{todo}")


def _load(path: Path) -> dict[str, object]:
    try:
        text = regular(path, most=MOST_BYTES).read_text(encoding="utf-8")
    except OSError as error:
        raise EnvironmentProblem(f"--plan {path} cannot be read", error.strerror or str(error), _EXAMPLE) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a plan file", str(error), _EXAMPLE) from error
    try:
        value: object = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        known = " ".join(str(error).replace('in "<unicode string>", ', "").split()) or "nested too deeply"
        raise UsageError(f"{path} is not a plan file", known, f"Fix it. {_EXAMPLE}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path} is not a plan file", "it has no keys such as method and task", _EXAMPLE)
    return cast("dict[str, object]", value)


class _Loader(yaml.BaseLoader):
    """Makes texts, lists and mappings alone, so that nothing in a file is executed, and no key stands twice."""

    def construct_scalar(self, node: yaml.ScalarNode) -> str:
        """Write `none` for YAML's null; a value that is left out is an error."""
        if node.style is None and node.value == "":
            raise yaml.constructor.ConstructorError(None, None, "a key has no value", node.start_mark)
        null = node.style is None and node.value in _NULLS
        return "none" if null else cast(str, node.value)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        made: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key: object = self.construct_object(key_node)
            if not isinstance(key, str) or key in made:
                problem = f"'{key}' is given twice" if isinstance(key, str) else "a key is no text"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            made[key] = self.construct_object(value_node)
        return made

    # the types of PyYAML leave it open
    construct_object: Callable[..., object]


class _Dumper(yaml.BaseDumper):
    """Writes every value as the text that `_Loader` reads, without quotes wherever that gives the same text."""

    def represent_text(self, value: object) -> yaml.ScalarNode:
        text = show(value)
        quoted = value in ("", "=", "<<", *_NULLS)  # the middle two have a meaning for other readers
        style = "'" if quoted else None if text.isprintable() else '"'  # PyYAML folds some line ends elsewhere
        return yaml.ScalarNode("tag:yaml.org,2002:str", text, style=style)

    def represent_list(self, items: list[object] | tuple[object, ...]) -> yaml.Node:
        return self.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)

    def represent_options(self, options: dict[str, object]) -> yaml.Node:
        return self.represent_mapping("tag:yaml.org,2002:map", options, flow_style=False)


for kind in (str, int, float, bool):
    _Dumper.add_representer(kind, _Dumper.represent_text)
for kind in (list, tuple):
    _Dumper.add_representer(kind, _Dumper.represent_list)
_Dumper.add_representer(dict, _Dumper.represent_options)
