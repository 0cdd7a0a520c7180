"""What a server says of itself."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ModelStatus:
    """One version of one model in the server's repository.

    Attributes:
        name: the model's name.
        version: its version, "" where none was found.
        state: READY, UNAVAILABLE, LOADING or UNLOADING; "" for a model that nobody asked the server to load.
        reason: why it is not ready, "" where the server does not say.
    """

    name: str
    version: str
    state: str
    reason: str

    @property
    def ready(self) -> bool:
        """Whether it answers requests."""
        return self.state == "READY"


@dataclass(frozen=True, kw_only=True)
class ServerStatus:
    """A server that answers.

    Attributes:
        name: what the server calls itself, such as "triton".
        version: its version.
        ready: whether it takes requests; by default that needs every model to be ready.
        models: every version of every model in its repository, by name.
    """

    name: str
    version: str
    ready: bool
    models: tuple[ModelStatus, ...]
