"""Where to look for an official file, and in which order."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from gdino_build.weights.manifest import OfficialFile
from gdino_core.errors import ConfigError

MIRROR_VARIABLE = "GDINO_WEIGHTS_MIRROR"
SOURCE_NAMES = ("github", "huggingface", "mirror", "file")  # in the order in which they are tried


@dataclass(frozen=True, kw_only=True)
class WebSource:
    """An address that the file is downloaded from.

    Attributes:
        name: one of SOURCE_NAMES.
        url: http or https; may carry secrets, so only `shown` is printed.
    """

    name: str
    url: str

    def __post_init__(self) -> None:
        parts = _split(self.url)
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"source {self.name} is no address of the web: {self.shown}",
                fix="give one that starts with https:// or http://",
            )

    @property
    def shown(self) -> str:
        """The address without user, password, query and fragment."""
        parts = _split(self.url)
        if parts is None or not parts.hostname:
            return "not a URL"  # what it is instead may still hold a secret
        host = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{host}{parts.path}" + ("?…" if parts.query else "")


@dataclass(frozen=True, kw_only=True)
class LocalSource:
    """A file that is copied.

    Attributes:
        path: of the file.
    """

    path: Path
    name: str = "file"

    @property
    def shown(self) -> str:
        """The path as the user gave it."""
        return str(self.path)


Source = WebSource | LocalSource


def choose_sources(
    official: OfficialFile, *, mirror: str = "", file: Path | None = None, names: Sequence[str] = ()
) -> list[Source]:
    """List the sources in the order in which they are tried.

    Args:
        official: what is looked for.
        mirror: address of a folder that holds the file under its official name; empty where there is none.
        file: the file itself, downloaded by other means.
        names: which of SOURCE_NAMES, in which order; empty for all that there are, in the usual order.

    Raises:
        ConfigError: an address is not of the web, or a source is named that was not given.
    """
    found: dict[str, Source] = {
        "github": WebSource(name="github", url=official.github),
        "huggingface": WebSource(name="huggingface", url=official.huggingface),
    }
    if mirror:
        WebSource(name="mirror", url=mirror)  # checks what the user wrote, before anything is joined to it
        found["mirror"] = WebSource(name="mirror", url=_join(mirror, official.name))
    if file is not None:
        found["file"] = LocalSource(path=file)
    missing = {"mirror": f"its address: --mirror URL or {MIRROR_VARIABLE}=URL", "file": "its path: --file PATH"}
    for name in names:
        if name not in found:
            raise ConfigError(
                f"source {name} was named without {missing[name]}", fix="give it, or leave the source out"
            )
    return [found[name] for name in dict.fromkeys(names or found)]


def _join(folder_url: str, name: str) -> str:
    """Append a file name to the path; a token in the query stays behind it."""
    parts = urlsplit(folder_url)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{name}").geturl()


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # a wrong one is an error only when it is read
    except ValueError:
        return None
    return parts
