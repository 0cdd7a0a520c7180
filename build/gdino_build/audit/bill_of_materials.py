"""A bill of materials in CycloneDX's format."""

import os
from pathlib import Path

from gdino_build.audit.tools import AuditTools

SPECIFICATION = "1.6"


def write_bill(tools: AuditTools, file: Path) -> None:
    """Write what the runtime environment is made of; the tool checks it against the schema before.

    Args:
        tools: with cyclonedx-py.
        file: such as out/sbom.json.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    partial.unlink(missing_ok=True)
    tools.run(
        "cyclonedx-py",
        *("environment", str(tools.runtime_python), "--pyproject", "pyproject.toml", "--spec-version", SPECIFICATION),
        *("--output-format", "JSON", "--output-file", str(partial), "--output-reproducible", "--validate"),
    )
    os.replace(partial, file)
