"""Print the pins of pyproject.toml's server extra, one a line: `server_requirements.py PYPROJECT`."""

import sys
import tomllib

with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)["project"]
print(*project["optional-dependencies"]["server"], sep="\n")
