"""Programs with the names of Slurm's clients, which note how they were called and answer what they are told to."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

PROGRAM = """\
#!{python} -S
import pathlib, sys
folder, name = pathlib.Path({folder!r}), pathlib.Path(sys.argv[0]).name
with (folder / "calls").open("a") as calls:
    calls.write(" ".join([name, *sys.argv[1:]]) + "\\n")
if name == "sbatch":
    (folder / "script").write_bytes(pathlib.Path(sys.argv[1]).read_bytes())
answer = folder / (name + ".answer")
code, _, text = (answer.read_text() if answer.exists() else "0\\n").partition("\\n")
print(text, file=sys.stderr if int(code) else sys.stdout)
sys.exit(int(code))
"""


class FalseSlurm:
    """The programs, in the folder `bin` of a folder; all of them succeed and sbatch submits job 41 until told else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        for name in ("sbatch", "srun", "squeue", "scancel", "scontrol"):
            program = folder / "bin" / name
            program.write_text(PROGRAM.format(python=sys.executable, folder=str(folder)))
            program.chmod(0o755)
        self.answer("sbatch", "Submitted batch job 41")
        self.answer("scontrol", "MaxArraySize            = 1001")

    def answer(self, name: str, text: str = "", code: int = 0) -> None:
        """What a program prints, on standard error if it fails, and its exit code."""
        (self.folder / f"{name}.answer").write_text(f"{code}\n{text}")

    def remove(self, name: str) -> None:
        (self.folder / "bin" / name).unlink()

    def calls(self, name: str) -> Sequence[str]:
        """The arguments of each call of a program."""
        file = self.folder / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line.removeprefix(name).strip() for line in lines if line.split()[0] == name]

    @property
    def script(self) -> str:
        """What was submitted last."""
        return (self.folder / "script").read_text()

    def directives(self) -> dict[str, str]:
        """The lines `#SBATCH --key=value` of it."""
        lines = [line.removeprefix("#SBATCH --") for line in self.script.splitlines() if line.startswith("#SBATCH")]
        return {key: value for key, _, value in (line.partition("=") for line in lines)}
