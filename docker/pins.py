"""Print what extras of pyproject.toml pin, one a line, but for this project itself: `pins.py PYPROJECT EXTRA...`."""

import sys
import tomllib

with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)["project"]
pins = [pin for extra in sys.argv[2:] for pin in project["optional-dependencies"][extra]]
print(*(pin for pin in pins if not pin.startswith(project["name"])), sep="\n")
