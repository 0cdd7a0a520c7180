"""The command line of `gdino`: what it takes, and what makes no sense before anything is asked."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gdino_client.client import DEFAULT_TIMEOUT_S, DEFAULT_URL
from gdino_core.contract import DEFAULT_BOX_THRESHOLD, DEFAULT_MAX_DETECTIONS, DEFAULT_TEXT_THRESHOLD

SAVE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

_EPILOG: Final = """\
examples:
  gdino detect picture.jpg --prompt "red circle . blue star ."
  gdino detect picture.jpg --label "red circle" --label "blue star" --save out.png
  gdino detect *.jpg --label cat --label dog --save-dir found --json found.json
  gdino detect picture.jpg --prompt "cat ." --json - | jq .detections
  gdino detect scan.tif --label cat --label dog --raw
  gdino status --url 10.0.0.7:8001
  gdino detect picture.jpg --label cat --url host:8443 --tls-ca ca.pem --api-key file:inference.key

exit codes:
  0    everything that was asked for was done
  1    it failed otherwise: the model is missing, the answer came too late, a file cannot be written
  2    the command line is wrong
  3    no server answers, or it takes no more requests
  4    a picture cannot be read, or the server refuses a picture, the prompt or a threshold;
       the other pictures are answered all the same
  130  interrupted
"""


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command line, by default this process's; exits with 2 and a message if it is wrong.

    Returns:
        `command` ("detect" or "status"), `url`, `timeout`, the TLS files, `api_key` (where it is); of detect also
        `pictures`, `prompt` or `labels`, the options, `raw`, `json`, and `save_as`: for each picture the path of its
        annotated copy, or None.
    """
    parser = argparse.ArgumentParser(
        prog="gdino",
        description="Ask a Triton server that holds GroundingDINO what is in pictures.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    detect = commands.add_parser(
        "detect",
        help="find what a prompt names in pictures",
        description="Find what a prompt names in pictures, and print it as a table or as JSON.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_question(detect)
    _add_outputs(detect)
    _add_options(detect)
    server = _add_server(detect)
    server.add_argument(
        "--raw",
        action="store_true",
        help="decode the pictures here and hand their pixels over in shared memory; the server is on this host",
    )
    status = commands.add_parser("status", help="say whether the server is ready, and list its models")
    _add_server(status)
    arguments = parser.parse_args(argv)
    if arguments.command == "detect":
        arguments.save_as = _save_as(detect, arguments.pictures, arguments.save, arguments.save_dir)
    return arguments


def _add_question(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="a JPEG, PNG, WebP, BMP, GIF or TIFF file")
    prompt = parser.add_mutually_exclusive_group(required=True)
    prompt.add_argument("--prompt", metavar="CAPTION", help='phrases, each ended by ".", as in "cat . dog ."')
    prompt.add_argument(
        "--label",
        action="append",
        dest="labels",
        metavar="LABEL",
        help="a label, returned verbatim; once for each label",
    )


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    outputs = parser.add_argument_group("what to write")
    annotated = outputs.add_mutually_exclusive_group()
    annotated.add_argument(
        "--save", metavar="FILE", type=Path, help="the picture with its boxes drawn; for one PICTURE"
    )
    annotated.add_argument(
        "--save-dir",
        metavar="FOLDER",
        type=Path,
        help="every picture with its boxes drawn, as FOLDER/NAME.png",
    )
    outputs.add_argument(
        "--json",
        metavar="FILE",
        help="what was found, one object for one PICTURE and a list for several; with - standard output has "
        "nothing but this",
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    options = parser.add_argument_group("what to keep")
    options.add_argument(
        "--box-threshold",
        type=float,
        metavar="P",
        help=f"what scores more, 0 to 1 (default {DEFAULT_BOX_THRESHOLD})",
    )
    options.add_argument(
        "--text-threshold",
        type=float,
        metavar="P",
        help=f"in a caption's phrase, tokens that score more, 0 to 1 (default {DEFAULT_TEXT_THRESHOLD})",
    )
    options.add_argument(
        "--nms-iou",
        type=float,
        metavar="IOU",
        help="no box that overlaps a better one of its label by more (default: all boxes)",
    )
    options.add_argument(
        "--max-detections", type=int, metavar="N", help=f"at most so many (default {DEFAULT_MAX_DETECTIONS})"
    )
    options.add_argument(
        "--remove-combined",
        action="store_const",
        const=True,
        help="in a caption's phrase, only the part around its best token (default: of all parts)",
    )


def _add_server(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    server = parser.add_argument_group("the server")
    server.add_argument(
        "--url", default=DEFAULT_URL, metavar="HOST:PORT", help="its gRPC address (default %(default)s)"
    )
    server.add_argument(
        "--timeout",
        type=float,
        default=DEFAULT_TIMEOUT_S,
        metavar="SECONDS",
        help="how long to wait for an answer (default %(default)g)",
    )
    _add_credentials(parser)
    return server


def _add_credentials(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("a server that asks for TLS or a key")
    group.add_argument("--tls-ca", type=Path, metavar="FILE", help="authorities that its certificate may come from")
    group.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate of this client (mutual TLS)")
    group.add_argument(
        "--tls-key", type=Path, metavar="FILE", help="private key of --tls-cert; nobody else may open it"
    )
    group.add_argument(
        "--tls-name", default="", metavar="NAME", help="name in its certificate, if not the host of --url"
    )
    group.add_argument(
        "--api-key",
        type=_key_source,
        metavar="file:PATH|env:NAME",
        help="where the key is, never the key itself: all users of a machine see each other's command lines",
    )


def _key_source(text: str) -> tuple[str, str]:
    kind, _, place = text.partition(":")
    if kind not in ("file", "env") or not place:
        # What was given may be the key: it is not shown, in a log for example.
        raise argparse.ArgumentTypeError("write file:PATH or env:NAME, where the key is, and not the key itself")
    return kind, place


def _save_as(
    parser: argparse.ArgumentParser, pictures: list[str], file: Path | None, folder: Path | None
) -> list[Path | None]:
    if file is None and folder is None:
        return [None] * len(pictures)
    if file is not None and len(pictures) > 1:
        parser.error(f"--save takes one PICTURE, here are {len(pictures)}: use --save-dir FOLDER")
    if file is not None and file.suffix.lower() not in SAVE_SUFFIXES:
        parser.error(f"--save {file}: the name must end with one of {', '.join(SAVE_SUFFIXES)}")
    paths = [file or Path(folder or "", Path(picture).stem + ".png") for picture in pictures]
    sources = {Path(picture).resolve() for picture in pictures}
    for index, path in enumerate(paths):
        if path.resolve() in sources:
            parser.error(f"{path} would be written over a PICTURE: choose another place")
        if path in paths[:index]:
            parser.error(f"two pictures would be written to {path}: ask for them one after the other")
    return list(paths)
