"""Ask a Triton server that holds GroundingDINO for the objects in a picture.

    from gdino_client import Client

    with Client() as client:
        for found in client.detect("picture.jpg", "red circle . blue star ."):
            print(found.label, found.score, found.box_xyxy)

client      the Client: one picture and one prompt in, Detections out
picture     a path, bytes, a Pillow picture or an array -> the bytes that are sent
prompt      a caption or labels -> the texts that are sent
tensors     those bytes and texts -> the tensors of a request, the answer's tensors -> Detections
shared_memory  pixels for a server on the same host
credentials TLS and the API key
channel     the gRPC channel
connection  its calls; every failure of them is one of the errors below
draw        Detections -> a picture with boxes
cli         the command `gdino`

Needs tritonclient[grpc], numpy and Pillow, and of gdino_core only what the standard library can import.
"""

from gdino_client.client import Client
from gdino_client.credentials import Credentials
from gdino_client.detections import Detection, Detections
from gdino_client.draw import draw_detections
from gdino_client.picture import ImageSource
from gdino_client.status import ModelStatus, ServerStatus
from gdino_core.errors import (
    AccessDenied,
    ClientError,
    ConfigError,
    DeadlineExceeded,
    GdinoError,
    ImageError,
    ModelUnavailable,
    PromptError,
    RequestRejected,
    ServerError,
    ServerUnavailable,
    ThresholdError,
)

__all__ = [
    "AccessDenied",
    "Client",
    "ClientError",
    "ConfigError",
    "Credentials",
    "DeadlineExceeded",
    "Detection",
    "Detections",
    "GdinoError",
    "ImageError",
    "ImageSource",
    "ModelStatus",
    "ModelUnavailable",
    "PromptError",
    "RequestRejected",
    "ServerError",
    "ServerStatus",
    "ServerUnavailable",
    "ThresholdError",
    "draw_detections",
]
