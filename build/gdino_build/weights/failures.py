"""Why a source did not give the file. `fetch` catches them all: users see one CheckpointError with every reason.

SourceFailed           nothing more to hope for from this source; the next one is tried
├── TransferBroken     it stopped in the middle: try again, from where it stopped
└── ResumeRefused      it cannot go on from where the partial file ends: start over, once
"""


class SourceFailed(Exception):
    """This source does not give the file."""


class TransferBroken(SourceFailed):
    """The connection was cut or fell silent before all bytes had come."""


class ResumeRefused(SourceFailed):
    """The server does not continue the partial file."""
