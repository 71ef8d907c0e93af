"""docs/methods.md, executed: LoRA-FA from the page alone is installed, checked, compared and put into LaTeX."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors import safe_open

from bench.cli import main
from bench.core import registry

PAGE = Path(__file__).resolve().parents[2] / "docs" / "methods.md"
TEXT = PAGE.read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```\w+ (\S+)\n(.*?)^```$", TEXT, flags=re.M | re.S))
"""Name of a file on the page → its content."""
Captured = pytest.CaptureFixture[str]


def install(source: Path, site: Path) -> None:
    """Install a package as `pip install` does, into a folder of its own."""
    flags = ("--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--target")
    pip = [sys.executable, "-m", "pip", "install", "-q", *flags, str(site), str(source)]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the page's package is installed, on the path."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name in ("lora_fa.py", "pyproject.toml"):
        (source / name).write_text(FILES[name], encoding="utf-8")
    install(source, site)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        registry.entries.cache_clear()
        yield site
    registry.entries.cache_clear()
    sys.modules.pop("lora_fa", None)


def test_it_imports_the_stable_surface_alone() -> None:
    tree = ast.parse(FILES["lora_fa.py"])
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert modules == {"bench.api", "dataclasses", "math", "torch"}
    assert len(FILES["lora_fa.py"].splitlines()) < 55


@pytest.mark.usefixtures("site")
def test_it_is_listed_shown_and_its_options_are_read(capsys: Captured) -> None:
    assert main(["list", "methods"]) == 0
    assert "LoRA-FA: adds a product of two thin matrices" in capsys.readouterr().out
    assert main(["show", "lora-fa"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Σ over target layers r·m, plus head" in shown and "r, the inner width of B·A" in shown, shown[:3000]
    assert main(["run", "--method", "lora-fa", "--task", "glue/rte", "--set", "method.rnk=4"]) == 2
    assert "Did you mean 'method.rank'?" in capsys.readouterr().err


@pytest.mark.usefixtures("site")
def test_it_keeps_its_promises(capsys: Captured) -> None:
    assert main(["check", "lora-fa"]) == 0
    lines = capsys.readouterr().out.splitlines()
    [block] = [block for block in re.findall(r"^```\n(.*?)^```$", TEXT, flags=re.M | re.S) if "can be built" in block]
    first, last = block.split("…\n")
    assert lines[: len(first.splitlines())] == first.splitlines()
    assert lines[-1] == last.strip()
    rows = re.findall(r"^\| ([a-z ]+) \| .* \|$", TEXT[TEXT.index("| check |") :], flags=re.M)
    named = {line[8:43].strip() for line in lines if line.startswith("mlp")}
    assert named <= {*rows}, "each check is explained on the page"


@pytest.mark.usefixtures("site")
def test_the_file_of_tests_runs(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_lora_fa=FILES["test_lora_fa.py"])
    result = pytester.runpytest_inprocess("-k", "formula and mlp")
    result.assert_outcomes(passed=1)


def test_a_row_for_the_paper_at_equal_parameters(site: Path, tiny_bert: Path, tmp_path: Path, capsys: Captured) -> None:
    words = ["--backbone", str(tiny_bert), "--data", "embedded", "--accelerator", "cpu", "--out", str(tmp_path)]
    few = ["--max-steps", "2", "--batch-size", "8", "--train-samples", "16", "--seeds", "0,1,2"]
    command = [*re.findall(r"^bench (run --method lora,lora-fa .*) --seeds 0,1,2$", TEXT, flags=re.M)[0].split()]
    assert main([*command, *words, *few]) == 0
    capsys.readouterr()
    records = [json.loads(file.read_text()) for file in tmp_path.glob("*/record.json")]
    ours = next(record for record in records if record["spec"]["method"] == "lora-fa")
    assert len(records) == 6 and ours["spec"]["options"]["method"]["rank"] == 16
    assert {record["params"]["trainable"] for record in records} == {4 * 8 * 64 + 66}
    with safe_open(tmp_path / ours["run_id"] / "adapter.safetensors", framework="pt") as file:
        assert sum(name.endswith("factors.0") for name in file.keys()) == 4, "A is not trained, and is kept"  # noqa: SIM118
    table, picture = tmp_path / "table.tex", tmp_path / "scores.pdf"
    labels = ["--label", "lora=LoRA", "--label", "lora-fa=LoRA-FA (ours)", "--runs", str(tmp_path)]
    assert main(["leaderboard", *labels, "--format", "tex", "--output", str(table), "--picture", str(picture)]) == 0
    rows = [line.split(" & ") for line in table.read_text().splitlines() if line.startswith("LoRA")]
    assert sorted(row[0] for row in rows) == ["LoRA", "LoRA-FA (ours)"]
    assert len({row[-2] for row in rows}) == 1, "equal parameters"
    assert picture.read_bytes().startswith(b"%PDF")
    capsys.readouterr()
    assert (
        main(["compare", "lora", "lora-fa", "--label", "lora-fa=LoRA-FA (ours)", "--format", "tex", *labels[-2:]]) == 0
    )
    assert r" & lora & LoRA-FA (ours) & difference \\" in capsys.readouterr().out


def test_as_a_package_its_options_need_no_torch(tmp_path: Path) -> None:
    source, site = tmp_path / "source", tmp_path / "site"
    package = source / "lora_fa"
    package.mkdir(parents=True)
    head, config, method = re.split(r"^(?=@dataclass|class LoRAFA\()", FILES["lora_fa.py"], flags=re.M)
    docstring = head.partition("\n\n")[0]
    (package / "__init__.py").write_text("")
    (package / "config.py").write_text(
        f"{docstring}\nfrom dataclasses import dataclass\nfrom bench.api import UpdateConfig, option\n\n{config}"
    )
    (package / "method.py").write_text(f"{head}from lora_fa.config import LoRAFAConfig\n\n{method}")
    [points] = re.findall(r"^```toml\n(.*?)^```$", TEXT, flags=re.M | re.S)
    project = FILES["pyproject.toml"]
    start = project.index("[project.entry-points")
    (source / "pyproject.toml").write_text(project[:start] + points)
    install(source, site)
    code = (
        "import sys\nfrom bench.core import registry\n"
        "config = registry.load_config('methods', 'lora-fa')\nprint(config(rank=3).rank, 'torch' in sys.modules)\n"
        "print(registry.load('methods', 'lora-fa').Config is config)"
    )
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(site)!r})\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.splitlines() == ["3 False", "True"], run.stderr
