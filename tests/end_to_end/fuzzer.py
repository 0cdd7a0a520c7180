"""Hostile requests from a seed, each with the gRPC codes that may answer it.

    .venv/bin/python -m tests.end_to_end.fuzzer --server 127.0.0.1:8001 --requests 1000 --seed 0

Between them a good request is asked again and again: its answer may not change.
"""

import argparse
import io
import random
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from PIL import Image
from tritonclient.grpc import service_pb2, service_pb2_grpc

from gdino_core import contract

PICTURE = Path("demo/samples/1-landscape.jpg")
PROMPT = (b"yellow star", b"purple circle")
_GOOD_EVERY = 10
_DEADLINE_S = 60.0

OK, INVALID = "OK", "INVALID_ARGUMENT"
Codes = frozenset[str]
Tensor = tuple[str, str, Sequence[int], bytes]  # name, type, shape, content
BAD: Codes = frozenset({INVALID})
EITHER: Codes = frozenset({OK, INVALID})  # a damaged picture may still be one
BUSY: Codes = frozenset({OK, INVALID, "UNAVAILABLE"})  # queued with a deadline of its own


@dataclass(frozen=True)
class Hostile:
    """One request.

    Attributes:
        name: of its kind.
        request: a ModelInferRequest.
        codes: of gRPC that may answer it.
    """

    name: str
    request: Any
    codes: Codes


@dataclass
class Findings:
    """What the fuzzer saw."""

    answered: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def bytes_tensor(elements: Sequence[bytes]) -> bytes:
    """Elements as they go over the wire."""
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def infer_request(model: str, tensors: Sequence[Tensor]) -> Any:
    """Put a request together by hand: name, type, shape and bytes of each tensor, whether they fit or not."""
    request = service_pb2.ModelInferRequest(model_name=model)
    for name, datatype, shape, content in tensors:
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        request.raw_input_contents.append(content)
    return request


def asking(
    image: bytes, prompt: Sequence[bytes], *more: tuple[str, str, Sequence[int], bytes], **parameters: int
) -> Any:
    """A request of the public model."""
    return infer_request(
        contract.MODEL_GROUNDING_DINO,
        [
            (contract.IMAGE, "BYTES", [1, 1], bytes_tensor([image])),
            (contract.PROMPT, "BYTES", [1, len(prompt)], bytes_tensor(prompt)),
            *more,
        ],
    )


def damaged_picture(rng: random.Random) -> Hostile:
    """A picture of some format, cut off or with other bytes in places."""
    file = io.BytesIO()
    kind = rng.choice(["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
    mode = rng.choice(["RGB", "L", "P"]) if kind not in ("WEBP", "JPEG") else "RGB"
    Image.effect_noise((rng.randint(1, 200), rng.randint(1, 200)), 80).convert(mode).save(file, kind)
    content = bytearray(file.getvalue())
    if rng.random() < 0.5:
        del content[rng.randrange(len(content)) :]
    for _ in range(rng.randint(0, 20)):
        if content:
            content[rng.randrange(len(content))] = rng.randrange(256)
    return Hostile(f"damaged {kind}", asking(bytes(content), PROMPT), EITHER)


def odd_picture(rng: random.Random) -> Hostile:
    """A whole picture of an odd kind."""
    mode, kind, codes = rng.choice(
        [
            ("CMYK", "JPEG", {OK}), ("1", "PNG", {OK}), ("RGBA", "PNG", {OK}), ("LA", "PNG", {OK}),
            ("I;16", "PNG", {OK}), ("F", "TIFF", {INVALID}), ("I", "TIFF", {INVALID}),
        ]
    )  # fmt: skip
    file = io.BytesIO()
    Image.new(mode, (rng.randint(2, 90), rng.randint(2, 90))).save(file, kind)
    return Hostile(f"odd {mode} {kind}", asking(file.getvalue(), PROMPT), frozenset(codes))


def pixel_bomb(rng: random.Random) -> Hostile:
    """Few bytes that claim to be very many pixels, or none."""
    width, height = rng.choice([(65_535, 65_535), (2**31 - 1, 1), (0, 10), (10, 0), (30_000, 30_000), (1, 100_000)])
    if rng.random() < 0.5:
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
        content = b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )
    else:
        content = b"GIF89a" + struct.pack("<HH", width & 0xFFFF, height & 0xFFFF) + b"\x80\0\0" + b"\0" * 6 + b"\x2c"
    return Hostile("pixel bomb", asking(content, PROMPT), BAD)


def no_picture(rng: random.Random) -> Hostile:
    """Bytes that are no picture at all, up to more than the limit."""
    content = rng.choice(
        [b"", b"\0", rng.randbytes(rng.randint(1, 5000)), b"<svg/>", b"%PDF-1.4", b"\x89PNG\r\n\x1a\n", 
         b"\xff\xd8\xff" * 9, b"data:image/png;base64,iVBORw0KGgo", b"x" * (33 * 2**20)]
    )  # fmt: skip
    return Hostile("no picture", asking(content, PROMPT), BAD)


def bad_prompt(rng: random.Random) -> Hostile:
    """A prompt that cannot be asked for."""
    prompt = rng.choice(
        [[b"cat", b""], [b"cat", b" \t "], [b"\xff\xfe"], [b"cat", b"\xc3\x28"], [b"cat . " * 2000], [b"x " * 9000],
         [b"a thing number %d" % index for index in range(9000)], [b"cat", b"word " * 400], [b"\xed\xa0\x80"]]
    )  # fmt: skip
    return Hostile("bad prompt", asking(PICTURE.read_bytes(), prompt), BAD)


def odd_prompt(rng: random.Random) -> Hostile:
    """A prompt that is odd, and can be asked for all the same or is refused."""
    characters = "a \n\t\0.?'\"é圆🙂\u202e\u200b\ufeff\ufffd1/-[]#"
    texts = ["".join(rng.choices(characters, k=rng.randint(1, 80))) for _ in range(rng.randint(1, 40))]
    return Hostile("odd prompt", asking(PICTURE.read_bytes(), [text.encode() for text in texts]), EITHER)


def bad_option(rng: random.Random) -> Hostile:
    """An option out of its range."""
    name, datatype, value = rng.choice(
        [(name, "FP32", struct.pack("<f", value))
         for name in (contract.BOX_THRESHOLD, contract.TEXT_THRESHOLD, contract.NMS_IOU)
         for value in (float("nan"), float("inf"), -float("inf"), -0.5, 1.5, 3e38)]
        + [(contract.MAX_DETECTIONS, "INT32", struct.pack("<i", value)) for value in (0, -1, -(2**31))]
    )  # fmt: skip
    return Hostile(f"bad {name}", asking(PICTURE.read_bytes(), PROMPT, (name, datatype, [1, 1], value)), BAD)


def greedy(rng: random.Random) -> Hostile:
    """Everything at once: no threshold, all detections, many labels."""
    labels = [b"label %d" % index for index in range(rng.randint(2, 60))]
    more = [
        (contract.BOX_THRESHOLD, "FP32", [1, 1], struct.pack("<f", 0.0)),
        (contract.MAX_DETECTIONS, "INT32", [1, 1], struct.pack("<i", 2**31 - 1)),
        (contract.NMS_IOU, "FP32", [1, 1], struct.pack("<f", rng.choice([1e-30, 0.5, 1.0]))),
    ]
    return Hostile("greedy", asking(PICTURE.read_bytes(), labels, *more[: rng.randint(1, 3)]), frozenset({OK}))


def bad_tensor(rng: random.Random) -> Hostile:
    """A tensor that is missing, unknown, of another type or shape, or whose bytes do not match."""
    image = (contract.IMAGE, "BYTES", [1, 1], bytes_tensor([PICTURE.read_bytes()]))
    prompt = (contract.PROMPT, "BYTES", [1, 2], bytes_tensor(PROMPT))
    tensors = rng.choice(
        [[], [image], [prompt], [image, image], [image, prompt, prompt], [image, ("PROMT", *prompt[1:])],
         [image, (contract.PROMPT, "INT32", [1, 1], b"\0\0\0\0")], [("IMAGE", "UINT8", [1, 3], b"abc"), prompt],
         [image, (contract.PROMPT, "BYTES", [2, 1], prompt[3])], 
         [image, (contract.PROMPT, "BYTES", [1, 99], prompt[3])],
         [image, (contract.PROMPT, "BYTES", [1, 2], prompt[3][:-3])], [image, (contract.PROMPT, "BYTES", [1, -1], b"")],
         [image, (contract.PROMPT, "BYTES", [1, 0], b"")], [(contract.IMAGE, "BYTES", [9, 1], image[3]), prompt],
         [image, (contract.PROMPT, "BYTES", [1, 1], struct.pack("<I", 2**31) + b"x")],
         [(contract.IMAGE_RGB, "UINT8", [1, 4, 4, 4], b"\0" * 64), prompt], [image, prompt,
          (contract.IMAGE_RGB, "UINT8", [1, 2, 2, 3], b"\0" * 12)],
         [(contract.IMAGE_RGB, "UINT8", [1, 0, 5, 3], b""), prompt],
         [(contract.IMAGE_RGB, "UINT8", [1, 1, 9000, 3], b"\0" * 27000), prompt],
         [image, prompt, (contract.BOX_THRESHOLD, "FP32", [1, 2], b"\0" * 8)]]
    )  # fmt: skip
    return Hostile("bad tensor", infer_request(contract.MODEL_GROUNDING_DINO, tensors), BAD)


def inner_model(rng: random.Random) -> Hostile:
    """A step of the ensemble called directly, with what the step before it would not send."""
    ints = [-(2**31), -1, 0, 5, 600, 40_000, 2**31 - 1]
    tokens = rng.choice([0, 1, 7, 16, 4000])

    def values(count: int) -> bytes:
        return struct.pack("<i", rng.choice(ints)) * count

    text = [
        (contract.POSITION_IDS, "INT32", [1, tokens], values(tokens)),
        (contract.PHRASE_IDS, "INT32", [1, tokens], values(tokens)),
    ]
    if rng.random() < 0.3:
        tensors = [(contract.INPUT_IDS, "INT32", [1, tokens], values(tokens)), *text]
        return Hostile("text encoder", infer_request(contract.MODEL_TEXT_ENCODER, tensors), EITHER)
    height, width = rng.choice([(128, 128), (128, 192), (100, 100), (1, 1), (32, 32), (2048, 2048), (0, 128)])
    feature = struct.pack("<f", rng.choice([0.0, float("nan"), float("inf"), 1e38]))
    tensors = [
        (contract.PIXELS, "UINT8", [1, 3, height, width], b"\x7f" * (3 * height * width)),
        (contract.VALID_HW, "INT32", [1, 2], values(2)),
        (contract.TEXT_FEATURES, "FP32", [1, tokens, 128], feature * (tokens * 128)),
        *text,
    ]
    return Hostile("detector", infer_request(contract.MODEL_DETECTOR, tensors), EITHER)


def bad_call(rng: random.Random) -> Hostile:
    """A model, version or request parameter that does not exist or makes no sense."""
    request = asking(PICTURE.read_bytes(), PROMPT)
    kind = rng.randrange(4)
    if kind == 0:
        request.model_name = rng.choice(["", "grounding", "../detector", "x" * 10_000, "\u202e"])
        return Hostile("unknown model", request, frozenset({INVALID, "NOT_FOUND", "UNAVAILABLE"}))
    if kind == 1:
        request.model_version = rng.choice(["7", "-1", "one", "1" * 30])
        return Hostile("unknown version", request, frozenset({INVALID, "NOT_FOUND", "UNAVAILABLE"}))
    if kind == 2:
        request.parameters["timeout"].int64_param = rng.choice([1, 10, -5])
        return Hostile("timeout", request, BUSY)
    request.parameters["priority"].uint64_param = rng.choice([3, 7, 2**63])
    return Hostile("priority", request, BUSY)


KINDS: tuple[Callable[[random.Random], Hostile], ...] = (
    damaged_picture, odd_picture, pixel_bomb, no_picture, bad_prompt, odd_prompt, bad_option, greedy, bad_tensor,
    inner_model, bad_call,
)  # fmt: skip


def fuzz(server: str, requests: int, seed: int, progress: Callable[[int], None] = lambda done: None) -> Findings:
    """Send so many hostile requests, and good ones between them.

    Args:
        server: HOST:PORT of its gRPC service.
        requests: how many are hostile.
        seed: of all of them.
        progress: called with the number sent.
    """
    rng, findings = random.Random(seed), Findings()
    options = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        # Triton repeats a model's name in its refusal, and of what is longer than 8 KiB gRPC drops some by chance.
        ("grpc.max_metadata_size", 1 << 16),
    ]
    with grpc.insecure_channel(server, options) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        good = asking(PICTURE.read_bytes(), PROMPT)
        expected = stub.ModelInfer(good, timeout=_DEADLINE_S).raw_output_contents
        for number in range(requests):
            hostile = rng.choice(KINDS)(rng)
            try:
                stub.ModelInfer(hostile.request, timeout=_DEADLINE_S)
                code, said = OK, ""
            except grpc.RpcError as error:
                code, said = error.code().name, error.details()
            findings.answered[f"{hostile.name}: {code}"] += 1
            if code not in hostile.codes:
                findings.wrong.append(f"request {number} of seed {seed} ({hostile.name}): {code} {said[:300]}")
            if number % _GOOD_EVERY == 0 and stub.ModelInfer(good, timeout=_DEADLINE_S).raw_output_contents != expected:
                findings.wrong.append(f"after request {number} of seed {seed} the good request is answered otherwise")
            progress(number + 1)
    return findings


def main() -> int:
    """Fuzz a running server; 1 if anything was wrong."""
    from tqdm import tqdm

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="127.0.0.1:8001", help="its gRPC service (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=1000, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    arguments = parser.parse_args()
    with tqdm(total=arguments.requests, unit="request", disable=None) as bar:
        found = fuzz(arguments.server, arguments.requests, arguments.seed, lambda done: bar.update(done - bar.n))
    for kind, count in sorted(found.answered.items()):
        print(f"{count:6} {kind}")
    print("\n".join(found.wrong) or f"{arguments.requests} hostile requests, each answered with the right code")
    return bool(found.wrong)


if __name__ == "__main__":
    sys.exit(main())
