"""The command gdino: what it prints where, and how it exits."""

import json
import shlex
import socket
from pathlib import Path

import pytest
from grpc import StatusCode
from PIL import Image

from gdino_client import arguments
from gdino_client.cli import main
from tests.client.canned_server import CannedServer, Failure, answer
from tests.client.conftest import MakePicture

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, make_picture: MakePicture, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with one.jpg, two.png and garbage.jpg in it."""
    (tmp_path / "one.jpg").write_bytes(make_picture("JPEG", orientation=6))
    (tmp_path / "two.png").write_bytes(make_picture("PNG"))
    (tmp_path / "garbage.jpg").write_bytes(b"garbage")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def url(server: CannedServer, folder: Path) -> str:
    """A server that finds a blue star in every picture, and refuses garbage."""

    def refuse(tensors: dict[str, object]) -> Failure | None:
        if b"garbage" not in tensors["IMAGE"]:  # type: ignore[operator]  # an array of bytes
            return None
        sentence = "in ensemble 'grounding_dino', IMAGE is not a picture\n  fix: send the bytes of a JPEG"
        return Failure(StatusCode.INVALID_ARGUMENT, sentence)

    server.refuse = refuse
    server.outputs = answer(["blue star"], [0.875], [(1, 2, 13, 14.5)], [1])
    return server.url


LABELS = ("--label", "red circle", "--label", "blue star")


def detect(url: str, *arguments: str) -> int:
    return main(["detect", "--url", url, *arguments])


def test_a_table_is_printed_by_default(url: str, capsys: Capture) -> None:
    assert detect(url, "one.jpg", *LABELS) == 0
    assert capsys.readouterr() == (
        "one.jpg  20x40  1 detection\n"
        "  label      score   x0   y0    x1    y1\n"
        "  blue star  0.875  1.0  2.0  13.0  14.5\n",
        "",
    )


def test_finding_nothing_is_said_and_is_no_failure(server: CannedServer, url: str, capsys: Capture) -> None:
    server.outputs = answer()
    assert detect(url, "two.png", "--prompt", "cat .") == 0
    assert capsys.readouterr().out == "two.png  40x20  0 detections\n"


def test_json_on_standard_output_is_one_object_and_nothing_else(url: str, capsys: Capture) -> None:
    assert detect(url, "one.jpg", *LABELS, "--json", "-", "--save", "out.png") == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "file": "one.jpg",
        "width": 20,
        "height": 40,
        "prompt": ["red circle", "blue star"],
        "detections": [{"label": "blue star", "label_index": 1, "score": 0.875, "box_xyxy": [1.0, 2.0, 13.0, 14.5]}],
    }
    assert err == "saved out.png\n"


def test_json_of_several_pictures_is_a_list(url: str, capsys: Capture) -> None:
    assert detect(url, "one.jpg", "two.png", "--prompt", "cat . dog", "--json", "-") == 0
    images = json.loads(capsys.readouterr().out)
    assert [image["file"] for image in images] == ["one.jpg", "two.png"]
    assert images[0]["prompt"] == ["cat", "dog"]


def test_json_in_a_file_leaves_the_table_on_standard_output(url: str, folder: Path, capsys: Capture) -> None:
    assert detect(url, "one.jpg", *LABELS, "--json", "found.json") == 0
    assert json.loads((folder / "found.json").read_text(encoding="utf-8"))["file"] == "one.jpg"
    assert capsys.readouterr().out.startswith("one.jpg  20x40  1 detection\n")


def test_options_reach_the_server(server: CannedServer, url: str) -> None:
    options = "--box-threshold 0.5 --text-threshold 0.25 --nms-iou 0.75 --max-detections 3 --remove-combined"
    assert detect(url, "one.jpg", *LABELS, *options.split()) == 0
    sent = server.requests[-1]
    names = ("BOX_THRESHOLD", "TEXT_THRESHOLD", "NMS_IOU", "MAX_DETECTIONS", "REMOVE_COMBINED")
    assert [sent[name].item() for name in names] == [0.5, 0.25, 0.75, 3, True]


@pytest.mark.parametrize("name", ["out.png", "new/folder/out.jpg", "out.webp", "out.tiff", "out.BMP"])
def test_the_saved_picture_is_upright_and_has_boxes(url: str, folder: Path, name: str) -> None:
    assert detect(url, "one.jpg", *LABELS, "--save", name) == 0
    with Image.open(folder / name) as saved:
        assert saved.size == (20, 40)
        assert len(saved.convert("RGB").getcolors(10_000) or ()) > 2


def test_save_dir_names_the_copies_after_the_pictures(url: str, folder: Path, capsys: Capture) -> None:
    assert detect(url, "one.jpg", "two.png", *LABELS, "--save-dir", "found") == 0
    assert sorted(path.name for path in (folder / "found").iterdir()) == ["one.png", "two.png"]
    assert "saved found/one.png\n" in capsys.readouterr().out


def test_a_bad_picture_beside_good_ones_is_told_and_the_good_ones_are_answered(url: str, capsys: Capture) -> None:
    pictures = ("one.jpg", "garbage.jpg", "nowhere.jpg", "two.png")
    assert detect(url, *pictures, *LABELS, "--json", "-") == 4
    out, err = capsys.readouterr()
    assert [image["file"] for image in json.loads(out)] == ["one.jpg", "two.png"]
    assert err.startswith(
        "gdino: garbage.jpg: IMAGE is not a picture\n  fix: send the bytes of a JPEG\n"
        "gdino: there is no file 'nowhere.jpg'\n  fix: check the spelling"
    )


def test_a_single_bad_picture_exits_with_4_and_prints_no_json(url: str, capsys: Capture) -> None:
    assert detect(url, "garbage.jpg", *LABELS, "--json", "-") == 4
    assert capsys.readouterr().out == ""


def test_an_empty_prompt_exits_with_4(url: str, capsys: Capture) -> None:
    assert detect(url, "one.jpg", "--prompt", " . ") == 4
    assert capsys.readouterr().err.startswith("gdino: the prompt is empty\n  fix: give a caption")


@pytest.mark.parametrize("command", [["detect", "one.jpg", "--prompt", "cat ."], ["status"]])
def test_no_server_exits_with_3_and_says_how_to_start_one(folder: Path, capsys: Capture, command: list[str]) -> None:
    with socket.socket() as taken_but_not_listening:
        taken_but_not_listening.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken_but_not_listening.getsockname()[1]}"
        assert main([*command, "--url", address]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"gdino: no Triton server answers at {address} (Connection refused)\n"
        "  fix: start one with `make serve PROFILE=demo-cpu`, or give the address of its gRPC service\n"
    )


def test_a_missing_model_exits_with_1(server: CannedServer, url: str, capsys: Capture) -> None:
    server.models = [("detector", "1", "READY", "")]
    assert detect(url, "one.jpg", *LABELS) == 1
    assert "ready are: detector (version 1)" in capsys.readouterr().err


def test_a_late_answer_exits_with_1(server: CannedServer, url: str, capsys: Capture) -> None:
    server.delay_s = 2.0
    assert detect(url, "one.jpg", *LABELS, "--timeout", "0.5") == 1
    assert "within 0.5 s" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--save", "--json"])
def test_a_file_that_cannot_be_written_exits_with_1_and_is_named(url: str, capsys: Capture, option: str) -> None:
    assert detect(url, "one.jpg", *LABELS, option, "two.png/out.png") == 1
    assert "gdino: cannot write two.png/out.png: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("one.jpg", "one of the arguments --prompt --label is required"),
        ("one.jpg --prompt cat --label dog", "not allowed with argument --prompt"),
        ("--prompt cat", "the following arguments are required: PICTURE"),
        (
            "one.jpg two.png --prompt cat --save out.png",
            "--save takes one PICTURE, here are 2: use --save-dir",
        ),
        ("one.jpg --prompt cat --save out.gif", "--save out.gif: the name must end with one of .png, .jpg"),
        ("one.jpg --prompt cat --save ./one.jpg", "one.jpg would be written over a PICTURE"),
        ("two.png --prompt cat --save-dir .", "two.png would be written over a PICTURE"),
        ("a/x.jpg b/x.png --prompt cat --save-dir out", "two pictures would be written to out/x.png"),
    ],
)
def test_a_wrong_command_line_exits_with_2_before_anything_is_asked(
    server: CannedServer, url: str, capsys: Capture, words: str, complaint: str
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        detect(url, *words.split())
    assert exit_info.value.code == 2
    assert complaint in capsys.readouterr().err
    assert not server.requests


def test_status_lists_models_and_is_ready_when_the_public_model_is(
    server: CannedServer, url: str, capsys: Capture
) -> None:
    server.models = [
        ("grounding_dino", "1", "READY", ""),
        ("extra", "", "UNAVAILABLE", "Internal: boom\n\nAt: x"),
    ]
    assert main(["status", "--url", url]) == 0
    assert capsys.readouterr().out == (
        f"triton 2.51.0 at {url} is not ready\n"
        "  model           version  state\n"
        "  extra           -        UNAVAILABLE  Internal: boom\n"
        "  grounding_dino  1        READY\n"
    )
    server.models = []
    assert main(["status", "--url", url]) == 1
    assert capsys.readouterr().out.endswith("  its repository has no models\n")


def test_the_examples_of_the_help_are_command_lines_that_parse(folder: Path) -> None:
    lines = [line.strip() for line in arguments.__dict__["_EPILOG"].splitlines() if line.startswith("  gdino ")]
    assert len(lines) == 7
    for line in lines:
        arguments.parse_arguments(shlex.split(line.partition("|")[0])[1:])


def test_a_key_on_the_command_line_is_refused_and_not_repeated(folder: Path, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["status", "--api-key", "qPzT8vJY3nH0sWmXk5bLrD1cF7gA9eU2"])
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert "where the key is, and not the key itself" in err
    assert "qPzT8" not in err


def test_a_key_in_a_variable_that_is_not_set_is_told_by_its_name(folder: Path, capsys: Capture) -> None:
    assert main(["status", "--api-key", "env:GDINO_NO_SUCH_KEY"]) == 1
    assert "--api-key names the variable GDINO_NO_SUCH_KEY, which is not set" in capsys.readouterr().err
