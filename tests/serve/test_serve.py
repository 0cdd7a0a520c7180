import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tritonclient import grpc
from tritonclient.utils import InferenceServerException

from gdino_build.serve import RunningServer, running_server
from gdino_build.server_ports import ServerPorts
from gdino_core import contract
from gdino_core.errors import ServerError
from tests.serve.asking import Question, ask, ask_together, cache_hits, png, tensor
from tests.serve.standin import LOGIT_OF_PHRASE

pytestmark = pytest.mark.server

CAPTION = ("cat . dog .",)
LABELS = ("cat", "big dog")
SCORE = 1 / (1 + np.exp(-LOGIT_OF_PHRASE))
LEFT_AND_RIGHT_HALF = [[0, 0, 50, 80], [50, 0, 100, 80]]


def test_caption_gives_phrases_with_boxes_in_pixels_of_the_sent_picture(server: RunningServer) -> None:
    answer = ask(server, Question(image=png(80, 100), prompt=CAPTION))
    assert answer[contract.LABELS].tolist() == [[b"cat", b"dog"]]
    assert answer[contract.LABEL_INDEX].tolist() == [[-1, -1]]
    np.testing.assert_allclose(answer[contract.BOXES], [LEFT_AND_RIGHT_HALF], atol=1e-4)
    np.testing.assert_allclose(answer[contract.SCORES], [[SCORE, SCORE]], atol=1e-6)


def test_labels_come_back_verbatim_with_their_index(server: RunningServer) -> None:
    answer = ask(server, Question(image=png(80, 100), prompt=("Katze ü", "Big DOG")))
    assert [label.decode() for label in answer[contract.LABELS][0]] == ["Katze ü", "Big DOG"]
    assert answer[contract.LABEL_INDEX].tolist() == [[0, 1]]


def test_picture_without_detections_is_answered_with_empty_tensors(server: RunningServer) -> None:
    answer = ask(server, Question(image=png(80, 100, brightness=0), prompt=CAPTION))
    assert {name: value.shape for name, value in answer.items()} == {
        contract.BOXES: (1, 0, 4),
        contract.SCORES: (1, 0),
        contract.LABELS: (1, 0),
        contract.LABEL_INDEX: (1, 0),
    }


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ((), 2),
        (((contract.MAX_DETECTIONS, 1),), 1),
        (((contract.BOX_THRESHOLD, 0.9),), 0),
        (((contract.BOX_THRESHOLD, 0.5), (contract.TEXT_THRESHOLD, 0.5), (contract.NMS_IOU, 0.5)), 2),
    ],
)
def test_each_optional_input_works_and_may_be_left_out(
    server: RunningServer, options: tuple[tuple[str, float], ...], kept: int
) -> None:
    answer = ask(server, Question(image=png(80, 100), prompt=CAPTION, options=options))
    assert answer[contract.SCORES].shape == (1, kept)


@pytest.mark.parametrize(("remove_combined", "labels"), [(False, [b"cat dog", b"cat dog"]), (True, [b"cat", b"dog"])])
def test_phrases_are_kept_apart_when_asked_to(
    server: RunningServer, remove_combined: bool, labels: list[bytes]
) -> None:
    # Below the logit of nothing, -10: every token counts, those of the other phrase too.
    options = ((contract.TEXT_THRESHOLD, 1e-6), (contract.REMOVE_COMBINED, remove_combined))
    answer = ask(server, Question(image=png(80, 100), prompt=CAPTION, options=options))
    assert [label.replace(b"[SEP]", b"").strip() for label in answer[contract.LABELS][0]] == labels


def test_garbage_beside_good_pictures_gets_a_sentence_and_the_server_goes_on(server: RunningServer) -> None:
    good, bad = Question(image=png(80, 100), prompt=CAPTION), Question(image=b"garbage" * 99, prompt=CAPTION)
    answers = ask_together(server, [good, bad, good, bad, good])
    for answer in answers[::2]:
        assert answer.result()[contract.LABELS].tolist() == [[b"cat", b"dog"]]
    for answer in answers[1::2]:
        error = answer.exception()
        assert isinstance(error, InferenceServerException)
        assert error.status() == "StatusCode.INVALID_ARGUMENT"
        assert "IMAGE is not a picture: 693 bytes" in error.message()
        assert "fix: send the bytes of a JPEG, PNG, WebP, BMP, GIF or TIFF file" in error.message()
    assert ask(server, good)[contract.SCORES].shape == (1, 2)


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        (Question(image=b"", prompt=CAPTION), "IMAGE is empty"),
        (Question(image=png(8, 8), prompt=()), "PROMPT is empty"),
        (Question(image=png(8, 8), prompt=("cat", "")), "PROMPT[1] has no token"),
        (Question(image=png(8, 8), prompt=("cat " * 300,)), "PROMPT has 303 tokens"),
        (Question(image=png(8, 8), prompt=CAPTION, options=((contract.BOX_THRESHOLD, 2),)), "BOX_THRESHOLD is 2.0"),
        (Question(image=png(8, 8), prompt=CAPTION, options=((contract.MAX_DETECTIONS, 0),)), "MAX_DETECTIONS is 0"),
    ],
)
def test_bad_request_is_told_what_is_wrong(server: RunningServer, question: Question, sentence: str) -> None:
    with pytest.raises(InferenceServerException) as caught:
        ask(server, question)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert sentence in caught.value.message()


def test_two_pictures_in_one_request_are_refused(server: RunningServer) -> None:
    inputs = [tensor("IMAGE", [png(8, 8)], "BYTES", batch=2), tensor("PROMPT", [b"cat"], "BYTES", batch=2)]
    with (
        grpc.InferenceServerClient(server.grpc_url) as client,
        pytest.raises(InferenceServerException, match="batch-size must be <= 1"),
    ):
        client.infer(contract.MODEL_GROUNDING_DINO, inputs)


def test_concurrent_requests_of_different_sizes_each_get_their_own_answer(server: RunningServer) -> None:
    sizes = [(80, 100), (100, 80), (40, 40), (80, 100), (300, 100), (80, 100), (80, 100), (80, 100)]
    prompts = [CAPTION, LABELS, ("tree . house .",)] * 3
    questions = [Question(image=png(*size), prompt=prompt) for size, prompt in zip(sizes, prompts, strict=False)]
    for question, answer in zip(questions, ask_together(server, questions), strict=True):
        alone, together = ask(server, question), answer.result()
        for name, expected in alone.items():
            assert together[name].tolist() == expected.tolist()


def test_repeated_prompt_comes_from_the_response_cache(server: RunningServer) -> None:
    question = Question(image=png(80, 100), prompt=("a prompt of this test alone .",))
    ask(server, question)
    before = cache_hits(server, contract.MODEL_TEXT_ENCODER)
    ask(server, question)
    assert cache_hits(server, contract.MODEL_TEXT_ENCODER) == before + 1


def test_server_tells_its_name_and_version(server: RunningServer) -> None:
    assert (server.name, server.version) == ("triton", "2.51.0")


def test_failed_model_is_reported_with_its_own_words_and_nothing_else(repository: Path, tmp_path: Path) -> None:
    broken = tmp_path / "repository"
    shutil.copytree(repository, broken)
    (broken / "detector" / "1" / "model.xml").unlink()
    before = _regions(os.getpid())
    with (
        pytest.raises(ServerError) as caught,
        running_server(broken, log_file=tmp_path / "tritonserver.log"),
    ):
        pass
    assert caught.value.message.splitlines() == [
        "tritonserver ended with exit code 1 before it was ready:",
        f"  model detector: ServerError: there is no engine {broken}/detector/1/model.xml",
        "    fix: build the engine, and assemble",
    ]
    assert str(tmp_path / "tritonserver.log") in caught.value.fix
    assert _regions(os.getpid()) <= before


def test_taken_port_is_named_with_who_has_it_and_how_to_change_it(repository: Path, tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        unused = ServerPorts.unused()
        with (
            pytest.raises(ServerError, match=rf"port {port} is taken by .*\(pid {os.getpid()}\)\n  fix: .*HTTP_PORT="),
            running_server(
                repository,
                log_file=tmp_path / "log",
                ports=ServerPorts(grpc=unused.grpc, http=port, metrics=unused.metrics),
            ),
        ):
            pass


def test_folder_that_was_never_assembled_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerError, match="is no assembled repository\n  fix: build it first"),
        running_server(tmp_path, log_file=tmp_path / "log"),
    ):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_foreground_server_stops_cleanly(repository: Path, tmp_path: Path, number: signal.Signals) -> None:
    with _foreground(repository, tmp_path) as process:
        assert process.stdout is not None
        assert "is ready after" in process.stdout.readline()
        (server,) = _children(process.pid)
        models = _children(server)
        process.send_signal(number)
        rest = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    assert rest.endswith("tritonserver stopped\n")
    assert not any(map(_is_alive, [server, *models]))
    assert not _regions(process.pid)


def test_server_does_not_outlive_a_killed_parent(repository: Path, tmp_path: Path) -> None:
    with _foreground(repository, tmp_path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (server,) = _children(process.pid)
        models = _children(server)
        process.kill()
    deadline = time.monotonic() + 60
    while any(map(_is_alive, [server, *models])) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(_is_alive, [server, *models]))


def _foreground(repository: Path, folder: Path) -> subprocess.Popen[str]:
    program = (
        "import sys; from pathlib import Path; from gdino_build.serve import serve; "
        "from gdino_build.server_ports import ServerPorts; "
        "serve(Path(sys.argv[1]), ports=ServerPorts.unused(), log_file=Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", program, str(repository), str(folder / "tritonserver.log")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def _is_alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def _regions(pid: int) -> set[Path]:
    """Shared memory of the servers that a process has started."""
    return set(Path("/dev/shm").glob(f"gdino_{pid}_*"))
