"""The environments that an audit looks at and with."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from gdino_core.errors import ConfigError, ServerError


@dataclass(frozen=True, kw_only=True)
class AuditTools:
    """What make_environments.sh has made.

    Attributes:
        folder: .venv-audit.
    """

    folder: Path

    def __post_init__(self) -> None:
        """Refuse a folder without them."""
        if not (self.folder / ".ready").is_file():
            raise ConfigError(
                f"there are no tools in {self.folder}", fix="build/gdino_build/audit/make_environments.sh makes them"
            )

    @property
    def runtime_python(self) -> Path:
        """The interpreter of the environment that is looked at."""
        return self.folder / "runtime" / "bin" / "python"

    @property
    def runtime_packages(self) -> Path:
        """Its packages."""
        return next((self.folder / "runtime").glob("lib/python3*/site-packages"))

    def run(self, name: str, *arguments: str, accepted: tuple[int, ...] = (0,)) -> str:
        """Run a tool, and return what it prints.

        Raises:
            ServerError: its exit code is not accepted, or it prints nothing where it must.
        """
        command = [str(self.folder / "tools" / "bin" / name), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode not in accepted or (done.returncode and not done.stdout):
            said = (done.stderr or done.stdout).strip().rpartition("\n")[2]
            raise ServerError(f"{name} failed: {said}", fix="mend what it says, and run make audit again")
        return done.stdout
