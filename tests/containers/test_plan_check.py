"""A container refuses plans that its TensorRT or its GPUs cannot load, and starts everything else."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gdino_core.errors import ConfigError, ServerError
from gdino_core.plan_check import capabilities_here, check_plans, tensorrt_here

REBUILD = "make engines PROFILE=gpu-fp16 SM=89"


def repository_of(folder: Path, engines: dict[str, Any]) -> Path:
    (folder / "manifest.json").write_text(json.dumps({"engines": engines, "files": {}}))
    return folder


def plans(*capabilities: int, version: str = "10.7.0.23") -> dict[str, Any]:
    found = {
        f"sm{capability}": {
            "capability": capability,
            "version": version,
            "rebuild_command": REBUILD.replace("89", str(capability)),
        }
        for capability in capabilities
    }
    return {"text_encoder": found, "detector": found}


def test_plans_of_this_tensorrt_for_these_gpus_are_served(tmp_path: Path) -> None:
    assert check_plans(repository_of(tmp_path, plans(89, 120)), lambda: "10.7.0", lambda: [120, 89, 89]) == 4


def test_a_plan_of_another_tensorrt_is_refused_with_what_rebuilds_it(tmp_path: Path) -> None:
    repository = repository_of(tmp_path, plans(89, version="10.8.0.43"))
    with pytest.raises(ServerError, match=rf"is of TensorRT 10.8.0.43, here is 10.7.0\n  fix: .*{REBUILD}"):
        check_plans(repository, lambda: "10.7.0", lambda: [89])


def test_a_gpu_without_a_plan_is_told_with_what_builds_one(tmp_path: Path) -> None:
    repository = repository_of(tmp_path, plans(89))
    with pytest.raises(ServerError, match=r"has SM=90, the plans of text_encoder are for SM=89\n.*gpu-fp16 SM=90"):
        check_plans(repository, lambda: "10.7.0", lambda: [89, 90])


def test_engines_for_cpus_need_neither(tmp_path: Path) -> None:
    engines = {"detector": {"onnx_sha256": "0", "openvino_version": "1", "build_seconds": 1.0}}
    assert check_plans(repository_of(tmp_path, engines)) == 0


def test_a_folder_that_is_no_repository_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no model repository"):
        check_plans(tmp_path)


def test_a_machine_without_gpu_and_tensorrt_says_so() -> None:
    with pytest.raises(ServerError, match="there is no TensorRT here"):
        tensorrt_here()
    with pytest.raises(ServerError, match=r"no GPU is seen.*\n  fix: start the container with --gpus all"):
        capabilities_here()


def start(*program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gdino_core.plan_check", *program]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_program_takes_the_place_of_the_check(tmp_path: Path) -> None:
    repository = repository_of(tmp_path, {})
    done = start("sh", "-c", 'echo "$0 $1"', "serving", f"--model-repository={repository}")
    assert (done.returncode, done.stdout) == (0, f"serving --model-repository={repository}\n")
    assert start("sh", "-c", "exit 7").returncode == 7


def test_a_repository_whose_plans_cannot_be_loaded_is_not_started(tmp_path: Path) -> None:
    done = start("sh", "-c", "echo started", f"--model-repository={repository_of(tmp_path, plans(89))}")
    assert done.returncode == 1
    assert not done.stdout
    assert "there is no TensorRT here" in done.stderr
