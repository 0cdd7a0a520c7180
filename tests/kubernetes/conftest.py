"""Render each variant once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kubernetes.rendered import Rendered, render


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Rendered]:
    folders: dict[str, Path] = {}

    def get(variant: str) -> Rendered:
        return render(variant, folders.setdefault(variant, tmp_path_factory.mktemp("kustomization")))

    return get
