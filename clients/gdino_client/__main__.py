"""Run the command `gdino` as `python -m gdino_client`."""

import sys

from gdino_client.cli import main

if __name__ == "__main__":
    sys.exit(main())
