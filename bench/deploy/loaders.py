"""Python that loads an exported folder without lowrank-bench: some twenty lines of its README.

Each loader defines `outputs`, of texts (and pairs) or of images: (N, outputs) of the head. The export runs the very
lines that it writes, and compares their outputs with the run's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

FOLDER, BASE = "«folder»", "«base»"
"""Places in the code for the folder, and for what the backbone is called."""
BASE_OF_NOTE = 'json.load(open(f"{folder}/bench.json"))["base"]["name"]'

POOLINGS = {
    "pooler": """\
    pooled = model(**inputs).pooler_output
""",
    "cls": """\
    pooled = model(**inputs).last_hidden_state[:, 0]
""",
    "mean": """\
    hidden, mask = model(**inputs).last_hidden_state, inputs["attention_mask"].unsqueeze(-1)
    pooled = (hidden * mask).sum(1) / mask.sum(1)
""",
}
HEAD = """\
    return pooled @ head["weight"].T + head["bias"]
"""
READ_HEAD = """\
head = load_file(f"{folder}/head.safetensors")
"""
READ_TOKENIZER = """\
tokenizer = AutoTokenizer.from_pretrained(folder)
"""
TEXTS = """

@torch.inference_mode()
def outputs(texts, pairs=None):
    inputs = tokenizer(texts, pairs, truncation=True, padding=True, return_tensors="pt")
"""
IMAGES = """

@torch.inference_mode()
def outputs(images):
    x = torch.stack([transform(image.convert("{mode}")) for image in images])
"""
BOTTLENECKS = """\
tensors = load_file(f"{{folder}}/adapter.safetensors")


def bottleneck(name):
    def add(block, args, out):
        hidden = out[0] if isinstance(out, tuple) else out
        x = hidden.movedim({axis}, -1)
        x = F.{activation}(F.linear(x, tensors[f"{{name}}.down.weight"], tensors[f"{{name}}.down.bias"]))
        x = F.linear(x, tensors[f"{{name}}.up.weight"], tensors[f"{{name}}.up.bias"]).movedim(-1, {axis})
        return (hidden + x, *out[1:]) if isinstance(out, tuple) else hidden + x

    return add


for name in {{key.rsplit(".", 2)[0] for key in tensors}}:
    model.get_submodule(name).register_forward_hook(bottleneck(name))
"""


@dataclass(frozen=True, kw_only=True)
class Loader:
    """A way to load a folder.

    Attributes:
        code: Python with `FOLDER` and `BASE` in it; empty where nothing but this suite builds the network.
        base: of the backbone, as others find it: a hub id, a name of timm's, or a folder.
        local: the same on this machine.
        library: whose format it is: peft, transformers or timm.
        architecture: the model for a whole task, a class of transformers or a name of timm's; empty where it is none.
    """

    code: str
    base: str
    local: str
    library: str
    architecture: str = ""

    def text(self) -> str:
        """Return the code for the README, which is in the folder; a base that is a folder is read from bench.json."""
        if not self.base.startswith("/") or BASE not in self.code:
            return self._filled(".", _quoted(self.base))
        return "import json\n\n" + self._filled(".", BASE_OF_NOTE)

    def _filled(self, folder: str, base: str) -> str:
        return self.code.replace(FOLDER, _quoted(folder)).replace(BASE, base)

    def load(self, folder: str) -> Callable[..., Tensor]:
        """Run the code on this machine; return its function `outputs`."""
        scope: dict[str, Any] = {}
        exec(compile(self._filled(folder, _quoted(self.local)), "README.md", "exec"), scope)
        return scope["outputs"]


def classifier(*, peft: bool, labels: Sequence[str]) -> str:
    """Load transformers' own model for classification, with or without an adapter of peft; no labels: a number."""
    if peft:
        names = ", ".join(f"{number}: {_quoted(label)}" for number, label in enumerate(labels))
        given = f"num_labels={len(labels)}, id2label={{{names}}}" if labels else "num_labels=1"
        imports = "from peft import AutoPeftModelForSequenceClassification\nfrom transformers import AutoTokenizer\n"
        load = f"model = AutoPeftModelForSequenceClassification.from_pretrained(folder, {given}).eval()\n"
    else:
        imports = "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n"
        load = "model = AutoModelForSequenceClassification.from_pretrained(folder).eval()\n"
    called = "    return model(**inputs).logits\n"
    return f"import torch\n{imports}\nfolder = {FOLDER}\n{READ_TOKENIZER}{load}{TEXTS}{called}"


def encoder(auto: str, *, pooling: str, kind: str, part: str = "", activation: str = "") -> str:
    """Load a text encoder of transformers, pool its token features, and apply the head.

    Args:
        auto: class that loads it.
        kind: merged, peft or adapter.
        part: what is taken of it, `.get_encoder()` of a network with a decoder.
        activation: of bottleneck adapters.
    """
    place = "folder" if kind == "merged" else BASE
    load = f"model = {auto}.from_pretrained({place}){part}.float().eval()\n"
    imports = ["import torch", "from safetensors.torch import load_file", f"from transformers import {auto}"]
    imports[-1] += ", AutoTokenizer"
    imports, load, more = _with(kind, imports, load, activation, axis=-1)
    return f"{imports}\nfolder = {FOLDER}\n{READ_TOKENIZER}{load}{READ_HEAD}{more}{TEXTS}{POOLINGS[pooling]}{HEAD}"


def timm_merged(*, mode: str) -> str:
    """Load a whole classifier of timm; `mode` is Pillow's, L or RGB."""
    return f"""\
import timm
import torch

folder = {FOLDER}
model = timm.create_model(f"local-dir:{{folder}}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
{IMAGES.format(mode=mode)}    return model(x)
"""


def timm_base(
    create: str, *, mode: str, data: Mapping[str, object], kind: str, activation: str = "", channels: bool = False
) -> str:
    """Load a network of timm's, add what was trained, and apply the head.

    Args:
        create: the call of `timm.create_model`.
        mode: as for `timm_merged`.
        data: arguments of `timm.data.create_transform`.
        kind: peft or adapter.
        activation: of bottleneck adapters.
        channels: whether a block's output is an image, whose channels are axis 1.
    """
    imports = ["import timm", "import torch", "from safetensors.torch import load_file"]
    load = f"model = {create}.eval()\n"
    imports, load, more = _with(kind, imports, load, activation, axis=1 if channels else -1)
    values = ", ".join(f"{key}={_shown(value)}" for key, value in data.items())
    return (
        f"{imports}\nfolder = {FOLDER}\n{load}{READ_HEAD}transform = timm.data.create_transform({values})\n{more}"
        f"{IMAGES.format(mode=mode)}    pooled = model.forward_head(model.forward_features(x), pre_logits=True)\n{HEAD}"
    )


def _with(kind: str, imports: Sequence[str], load: str, activation: str, *, axis: int) -> tuple[str, str, str]:
    """Return imports, the loading of the network, and what follows it, for a merged network, or for an adapter."""
    lines, more = [*imports], ""
    if kind == "peft":
        lines.insert(-1 if lines[-1].startswith("from safetensors") else 1, "from peft import PeftModel")
        load += "model = PeftModel.from_pretrained(model, folder).eval()\n"
    if kind == "adapter":
        lines.insert(lines.index("import torch") + 1, "import torch.nn.functional as F")
        more = BOTTLENECKS.format(activation=activation, axis=axis)
    return "\n".join(lines) + "\n", load, more


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _shown(value: object) -> str:
    return _quoted(value) if isinstance(value, str) else repr(value)
