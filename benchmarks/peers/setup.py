"""Makes each peer's environment: a venv of its own, or jars and a compiled class. Nothing of it lies in the checkout.

python -m benchmarks.peers.setup [faust quix bytewax pathway kafka_streams]
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
STREAMS = HERE / "kafka_streams"
PYTHON = ("python3.11", "python3.12", "python3")
INSTALL_S = 1200

# What each one's own guide has installed; orjson where the peer brings no fast JSON of its own.
REQUIREMENTS = {
    "faust": ["faust-streaming==0.15.3", "orjson"],
    "quix": ["quixstreams==3.28.1", "orjson"],
    "bytewax": ["bytewax[kafka]==0.21.1", "orjson"],
    "pathway": ["pathway==0.33.0"],
}
NAMES = (*REQUIREMENTS, "kafka_streams")


def home() -> Path:
    """Return the folder of all environments."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return cache / "headwater-benchmarks" / "peers"


@dataclass(frozen=True, slots=True)
class Peer:
    """A stream processor beside Headwater: how its program is started, or why it is missing."""

    name: str

    @property
    def folder(self) -> Path:
        """The folder of its environment."""
        return home() / self.name

    def missing(self) -> str | None:
        """Say why it can't be run, or None."""
        if (self.folder / "ready").exists():
            return None
        reason = self.folder / "reason"
        if reason.exists():
            return reason.read_text().strip()
        return f"not set up: python -m benchmarks.peers.setup {self.name}"

    def command(self) -> list[str]:
        """Return its program, to which the path of a job is added."""
        if self.name == "kafka_streams":
            jars = (self.folder / "classpath").read_text().strip()
            quiet = ["-Dorg.slf4j.simpleLogger.defaultLogLevel=error"]
            return ["java", "-Xmx1g", *quiet, "-cp", f"{self.folder}{os.pathsep}{jars}", "Works"]
        return [str(self.folder / "bin" / "python"), str(HERE / f"{self.name}_program.py")]

    def set_up(self) -> None:
        """Make the environment anew; a failure's reason is kept for the benchmarks to name."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        try:
            self._build()
        except (subprocess.SubprocessError, OSError) as error:
            said = getattr(error, "stderr", None) or str(error)
            last = said.strip().splitlines()[-1:]
            (self.folder / "reason").write_text(f"can't be installed here: {' '.join(last)}\n")
            return
        (self.folder / "ready").touch()

    def _build(self) -> None:
        if self.name == "kafka_streams":
            path = self.folder / "classpath"
            _run("mvn", "-q", "-B", "-f", str(STREAMS / "pom.xml"), "dependency:build-classpath",
                 f"-Dmdep.outputFile={path}")  # fmt: skip
            _run(
                "javac", "-d", str(self.folder), "-cp", path.read_text().strip(), str(STREAMS / "Works.java")
            )
            return
        python = next(found for name in PYTHON if (found := shutil.which(name)))
        _run(python, "-m", "venv", str(self.folder))
        _run(str(self.folder / "bin" / "pip"), "install", "--quiet", *REQUIREMENTS[self.name])


def _run(*arguments: str) -> None:
    subprocess.run(
        arguments, check=True, text=True, capture_output=True, timeout=INSTALL_S, stdin=subprocess.DEVNULL
    )


def main() -> int:
    """Set up the peers named, or all; exit code 1 where one is missing in the end."""
    names = sys.argv[1:] or NAMES
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        sys.stderr.write(f"no peer {unknown[0]}; there are {', '.join(NAMES)}\n")
        return 2
    failed = False
    for name in names:
        peer = Peer(name)
        peer.set_up()
        reason = peer.missing()
        failed = failed or reason is not None
        sys.stdout.write(f"{name}: {reason or 'ready'}\n")
        sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
