"""Which TensorRT compiles: the full one where it is installed, otherwise TensorRT-RTX, and a hint where none is."""

import sys
from importlib.metadata import version
from types import ModuleType, SimpleNamespace

import pytest

from gdino_build.tensorrt.flavour import find_flavour
from gdino_core.errors import ConfigError, ExportError

RTX_MODULES = ("tensorrt_rtx", "tensorrt_rtx_bindings")


@pytest.fixture
def no_full_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # what importing it finds: nothing


def install_full(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """Put a module in the place of full TensorRT, which cannot be installed on a machine without NVIDIA's index."""
    module = ModuleType("tensorrt")
    module.__version__ = version  # type: ignore[attr-defined]
    module.Builder = object  # type: ignore[attr-defined]
    module.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", module)


@pytest.mark.usefixtures("no_full_tensorrt")
def test_rtx_is_found_where_it_is_the_only_one_and_says_the_version_that_pip_installed() -> None:
    flavour = find_flavour()
    assert (flavour.name, flavour.version) == ("tensorrt-rtx", version("tensorrt-rtx"))
    assert flavour.compiled_ahead_of_time() == (75, 80, 86, 89, 120, 121)


def test_the_full_one_comes_first_and_the_other_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    install_full(monkeypatch, "10.9.0.34")
    assert str(find_flavour()) == "tensorrt 10.9.0.34"
    assert find_flavour("tensorrt-rtx").name == "tensorrt-rtx"


def test_only_version_10_must_be_asked_for_a_strongly_typed_network(monkeypatch: pytest.MonkeyPatch) -> None:
    install_full(monkeypatch, "10.9.0.34")
    assert find_flavour().network_flags() == 1 << 1
    install_full(monkeypatch, "11.4.1.2")
    assert find_flavour().network_flags() == 0
    assert find_flavour("tensorrt-rtx").network_flags() == 0


def test_a_version_without_strong_types_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install_full(monkeypatch, "8.6.1")
    with pytest.raises(ExportError, match=r"tensorrt 8\.6\.1 is too old(.|\n)*install tensorrt 10 or newer"):
        find_flavour()


def test_the_empty_package_of_pypi_does_not_hide_rtx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", ModuleType("tensorrt"))
    assert find_flavour().name == "tensorrt-rtx"


@pytest.mark.usefixtures("no_full_tensorrt")
def test_where_none_is_installed_the_error_names_the_command_that_installs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in RTX_MODULES:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ExportError, match=r"TensorRT is not installed(.|\n)*pip install tensorrt-rtx==1\.7\.1\.116"):
        find_flavour()


def test_a_flavour_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ConfigError, match="choose one of tensorrt, tensorrt-rtx"):
        find_flavour("tensorrt-lean")
