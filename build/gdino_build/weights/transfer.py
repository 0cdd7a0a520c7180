"""One HTTP request: what the server may answer, and its bytes appended to the partial file."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import requests
from tqdm import tqdm

from gdino_build.weights.failures import ResumeRefused, SourceFailed, TransferBroken
from gdino_build.weights.identity import size_of
from gdino_build.weights.manifest import OfficialFile

CHUNK_BYTES = 2**16  # what a broken connection loses at most
MAX_REDIRECTS = 10
_WEB_PAGE = "sent a web page, not the file"
_WEB_PAGE_STARTS = (b"<!doctype", b"<html", b"<?xml")


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to hope for a server.

    Attributes:
        timeout_s: without an answer, or without a byte in the middle of one.
        tries: of one source whose transfers break.
        pause_s: before the second try; doubled before each one after it.
    """

    timeout_s: float
    tries: int = 5
    pause_s: float = 0.5


def continue_partial(url: str, official: OfficialFile, partial: Path, timeout_s: float) -> None:
    """Ask for the bytes that the partial file lacks, and append them.

    The partial file is emptied if the server sends everything from its start instead. Which version of the file the
    server has is not asked (If-Range): the SHA-256 of the whole decides.

    Raises:
        SourceFailed: the server has no such file, or another one; or cannot be reached.
        TransferBroken: what has come is kept.
        ResumeRefused: nothing was written.
        OSError: the partial file cannot be written.
    """
    have_bytes = size_of(partial)
    headers = {"Accept-Encoding": "identity"}
    if have_bytes:
        headers["Range"] = f"bytes={have_bytes}-"
    with requests.Session() as session:
        session.max_redirects = MAX_REDIRECTS
        try:
            response = session.get(url, headers=headers, stream=True, timeout=timeout_s)
        except (OSError, ValueError) as error:  # all of requests' are OSErrors; ValueError: a redirect to no address
            raise SourceFailed(_describe_no_answer(error, timeout_s)) from error
        with response:
            start_byte = _check_answer(response, official, have_bytes)
            chunks = _chunks(response, timeout_s, at_start=start_byte == 0)
            _append(chunks, official, partial, start_byte)


def _check_answer(response: requests.Response, official: OfficialFile, have_bytes: int) -> int:
    """Return at which byte of the file the body starts."""
    status = response.status_code
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have_bytes:
        raise ResumeRefused(f"HTTP 416, it has nothing after byte {have_bytes:,}")
    if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        raise SourceFailed(f"HTTP {status} {response.reason}".rstrip())
    if response.headers.get("Content-Type", "").lower().startswith(("text/html", "application/xhtml")):
        raise SourceFailed(f"{_WEB_PAGE} (Content-Type {response.headers['Content-Type']})")
    if coding := response.headers.get("Content-Encoding", "").replace("identity", ""):
        raise SourceFailed(f"sends the file compressed ({coding}), though asked not to")
    if status == HTTPStatus.PARTIAL_CONTENT:
        start_byte = have_bytes
        announced = _check_range(response.headers.get("Content-Range", ""), start_byte)
    else:
        start_byte = 0  # nothing was asked to be left out, or it was ignored
        announced = response.headers.get("Content-Length", "*")
    if announced.isdecimal() and int(announced) != official.size_bytes:
        raise SourceFailed(f"has another file: expected {official.size_bytes:,} bytes, it announces {int(announced):,}")
    return start_byte


def _check_range(content_range: str, start_byte: int) -> str:
    """Return the size of the whole file as a Content-Range tells it, `*` where it does not."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", content_range)
    if not match or int(match[1]) != start_byte:
        raise ResumeRefused(f"asked for the bytes from {start_byte:,} on, it sends {content_range!r}")
    return match[2]


def _append(chunks: Iterator[bytes], official: OfficialFile, partial: Path, start_byte: int) -> None:
    size_bytes = official.size_bytes
    written = start_byte
    with (
        partial.open("ab" if start_byte else "wb") as file,
        # On a terminal alone (disable=None): percent, bytes, time left, rate.
        tqdm(total=size_bytes, initial=start_byte, desc=official.name, unit="B", unit_scale=True, disable=None) as bar,
    ):
        for chunk in chunks:
            if written + len(chunk) > size_bytes:
                partial.unlink()  # its bytes are those of another file
                raise SourceFailed(f"sent more than the expected {size_bytes:,} bytes")
            file.write(chunk)
            written += len(chunk)
            bar.update(len(chunk))
    if written < size_bytes:
        raise TransferBroken(f"ended after {written:,} of {size_bytes:,} bytes")


def _chunks(response: requests.Response, timeout_s: float, *, at_start: bool) -> Iterator[bytes]:
    """Yield the body until it ends or breaks: that is for the caller to tell apart, by its length."""
    try:
        for chunk in response.iter_content(CHUNK_BYTES):
            if at_start and chunk.lstrip()[:9].lower().startswith(_WEB_PAGE_STARTS):
                raise SourceFailed(_WEB_PAGE)
            at_start = False
            yield chunk
    except requests.exceptions.ChunkedEncodingError:  # closed before its announced end
        return
    except requests.RequestException as error:
        if "timed out" in str(error):
            raise TransferBroken(f"no byte came for {timeout_s:g} s") from error
        return


def _describe_no_answer(error: Exception, timeout_s: float) -> str:
    """Say why no answer came, without the texts of requests: they hold the address with its secrets."""
    if isinstance(error, requests.TooManyRedirects):
        return f"redirects more than {MAX_REDIRECTS} times"
    if isinstance(error, requests.exceptions.InvalidSchema):
        return "redirects to what is no address of the web"
    if isinstance(error, requests.Timeout):
        return f"no answer in {timeout_s:g} s"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted (REQUESTS_CA_BUNDLE=FILE names certificates of your own)"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy does not let through (see HTTPS_PROXY and NO_PROXY)"
    if type(error) is OSError:  # requests' own check before it connects
        return "the certificates that REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE names are not there"
    if reason := _system_reason(error):
        return f"no connection: {reason}"
    return f"no usable answer ({type(error).__name__})"


def _system_reason(error: BaseException) -> str:
    """What the operating system said, such as `Connection refused`; it stands deep in the chain of causes."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return ""
