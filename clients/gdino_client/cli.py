"""The command `gdino`; `gdino detect --help` lists its exit codes."""

import io
import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gdino_client.arguments import parse_arguments
from gdino_client.client import Client
from gdino_client.credentials import Credentials
from gdino_client.detections import Detections
from gdino_client.draw import draw_detections
from gdino_client.picture import decode_upright, read_picture
from gdino_client.table import detections_table, status_table
from gdino_core.api_keys import read_key_file
from gdino_core.contract import MODEL_GROUNDING_DINO
from gdino_core.errors import ConfigError, GdinoError, ImageError, InputError, RequestRejected, ServerUnavailable

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_SERVER_UNAVAILABLE = 3  # 2 is argparse's, for a wrong command line
EXIT_INPUT = 4
EXIT_INTERRUPTED = 130

_STANDARD_OUTPUT = "-"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, by default this process's, and return the exit code.

    Answers go to standard output, what went wrong to standard error.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A label that the terminal's encoding lacks is no reason to fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = parse_arguments(argv)
    try:
        is_raw = arguments.command == "detect" and arguments.raw
        with Client(
            arguments.url,
            timeout_s=arguments.timeout,
            shared_memory=is_raw,
            credentials=_credentials(arguments),
        ) as client:
            code = print_status(client, arguments.url) if arguments.command == "status" else _detect(client, arguments)
        sys.stdout.flush()
    except GdinoError as error:
        _complain(str(error))
        return _exit_code(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our pipe has left, as `head` does; at its exit Python would complain once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    return code


def detect_pictures(
    ask: Callable[[bytes], Detections],
    pictures: Sequence[str],
    save_as: Sequence[Path | None],
    json_file: str | None,
) -> int:
    """Ask for each picture, write what was found, and return the exit code.

    A picture that cannot be read or is refused is reported, and the others are answered.

    Args:
        ask: sends the bytes of one picture.
        pictures: their paths.
        save_as: for each where its annotated copy goes, or None.
        json_file: where the JSON goes, "-" for standard output, or None.

    Raises:
        GdinoError: what goes wrong for all of them.
    """
    notes = sys.stderr if json_file == _STANDARD_OUTPUT else sys.stdout
    answered: list[dict[str, Any]] = []
    code = EXIT_OK
    for picture, annotated in zip(pictures, save_as, strict=True):
        answer = _answer(ask, picture)
        if answer is None:
            code = EXIT_INPUT
            continue
        data, detections = answer
        answered.append(detections.to_dict(file=picture))
        if json_file != _STANDARD_OUTPUT:
            print(detections_table(picture, detections))
        if annotated is not None:
            _save_annotated(data, detections, annotated)
            print(f"saved {annotated}", file=notes)
    if json_file is not None and answered:
        _write_json(answered if len(pictures) > 1 else answered[0], json_file)
    return code


def print_status(client: Client, url: str) -> int:
    """Print what the server says of itself; EXIT_OK if it can be asked for detections."""
    status = client.status()
    print(status_table(url, status))
    ready = any(model.name == MODEL_GROUNDING_DINO and model.ready for model in status.models)
    return EXIT_OK if ready else EXIT_FAILED


def _credentials(arguments: Namespace) -> Credentials:
    kind, place = arguments.api_key or ("", "")
    if kind == "env" and place not in os.environ:
        raise ConfigError(
            f"--api-key names the variable {place}, which is not set", fix=f"export {place}, or use file:"
        )
    return Credentials(
        tls_ca=arguments.tls_ca,
        tls_cert=arguments.tls_cert,
        tls_key=arguments.tls_key,
        tls_name=arguments.tls_name,
        api_key=read_key_file(Path(place)) if kind == "file" else os.environ.get(place, ""),
    )


def _detect(client: Client, arguments: Namespace) -> int:
    def ask(data: bytes) -> Detections:
        return client.detect(
            decode_upright(data) if arguments.raw else data,
            arguments.labels if arguments.prompt is None else arguments.prompt,
            box_threshold=arguments.box_threshold,
            text_threshold=arguments.text_threshold,
            nms_iou=arguments.nms_iou,
            max_detections=arguments.max_detections,
            remove_combined=arguments.remove_combined,
        )

    return detect_pictures(ask, arguments.pictures, arguments.save_as, arguments.json)


def _answer(ask: Callable[[bytes], Detections], picture: str) -> tuple[bytes, Detections] | None:
    try:
        data = read_picture(picture)
    except ImageError as error:
        _complain(str(error))
        return None
    try:
        return data, ask(data)
    except (ImageError, RequestRejected) as error:
        _complain(f"{picture}: {error}")
        return None


def _save_annotated(data: bytes, detections: Detections, path: Path) -> None:
    picture = draw_detections(decode_upright(data), detections)
    lossy = path.suffix.lower() in (".jpg", ".jpeg", ".webp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if lossy:
            picture.save(path, quality=92)
        else:
            picture.save(path)
    except (OSError, ValueError) as error:
        raise _cannot_write(path, error) from error


def _write_json(content: object, file: str) -> None:
    text = json.dumps(content, indent=2) + "\n"
    if file == _STANDARD_OUTPUT:
        sys.stdout.write(text)
        return
    try:
        Path(file).write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        raise _cannot_write(file, error) from error


def _cannot_write(path: Path | str, error: Exception) -> GdinoError:
    reason = (isinstance(error, OSError) and error.strerror) or str(error)
    return GdinoError(f"cannot write {path}: {reason}", fix="choose a place where you may write")


def _exit_code(error: GdinoError) -> int:
    if isinstance(error, ServerUnavailable):
        return EXIT_SERVER_UNAVAILABLE
    if isinstance(error, InputError | RequestRejected):
        return EXIT_INPUT
    return EXIT_FAILED


def _complain(message: str) -> None:
    # A path from the command line can hold bytes that are no text; those are shown escaped.
    print(f"gdino: {message.encode('utf-8', 'backslashreplace').decode('utf-8')}", file=sys.stderr)
