"""The errors of every package in this project.

GdinoError
├── ConfigError            a setting, profile or config.pbtxt is wrong
├── InputError             what a user sent cannot be worked on
│   ├── ImageError
│   ├── PromptError
│   ├── TensorError
│   └── ThresholdError
├── CheckpointError        a weights file is not what it should be
├── ExportError            a model could not be turned into ONNX or an engine
├── ParityError            a stage does not compute what the stage before it computes
├── ServerError            the server could not start, or a model in it misbehaves
│   └── ServerStopping     it answers what it has accepted, and accepts no more
└── ClientError            a request got no answer
    ├── AccessDenied
    ├── ServerUnavailable
    ├── ModelUnavailable
    ├── RequestRejected
    └── DeadlineExceeded

Only a program's `main` catches GdinoError: it prints the message and exits non-zero.
"""

__all__ = [
    "AccessDenied",
    "CheckpointError",
    "ClientError",
    "ConfigError",
    "DeadlineExceeded",
    "ExportError",
    "GdinoError",
    "ImageError",
    "InputError",
    "ModelUnavailable",
    "ParityError",
    "PromptError",
    "RequestRejected",
    "ServerError",
    "ServerStopping",
    "ServerUnavailable",
    "TensorError",
    "ThresholdError",
]


class GdinoError(Exception):
    """Base of every error here: says what is wrong, with what value, and how to fix it."""

    def __init__(self, message: str, *, fix: str = "") -> None:
        """Keep what is wrong, with the value found, and what the reader can do about it."""
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        """Return the message, and the fix on a second line where there is one."""
        return f"{self.message}\n  fix: {self.fix}" if self.fix else self.message


class ConfigError(GdinoError):
    """A setting, a build profile or a config.pbtxt is wrong."""


class InputError(GdinoError):
    """What a user sent cannot be worked on; the user can mend it."""


class ImageError(InputError):
    """The bytes are not a picture that can be read, or it is over a limit."""


class PromptError(InputError):
    """The caption or the labels cannot be encoded."""


class TensorError(InputError):
    """A tensor that was sent to a step of the ensemble is not what the step before it would send."""


class ThresholdError(InputError):
    """A threshold or a count of detections is out of its range."""


class CheckpointError(GdinoError):
    """A weights file is missing, damaged, or of another model."""


class ExportError(GdinoError):
    """A model could not be turned into ONNX or into an engine."""


class ParityError(GdinoError):
    """A stage does not compute what the stage before it computes."""


class ServerError(GdinoError):
    """The server could not start, or a model in it misbehaves."""


class ServerStopping(ServerError):
    """The server answers what it has accepted, and accepts no more."""


class ClientError(GdinoError):
    """A request got no answer."""


class AccessDenied(ClientError):
    """The server asks for a key or a certificate that this client has not shown."""


class ServerUnavailable(ClientError):
    """Nothing answers at the address, or the server is not ready."""


class ModelUnavailable(ClientError):
    """The server answers, but the model is missing or not ready."""


class RequestRejected(ClientError):
    """The server refused this request: its picture, prompt or thresholds."""


class DeadlineExceeded(ClientError):
    """The answer did not come within the time that was asked for."""
