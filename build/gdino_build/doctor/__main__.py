"""Say what of this machine cannot work together, why, and what mends it."""

import sys

_OLDEST_PYTHON = (3, 11)


def main() -> int:
    """Look, and tell; an older Python, in which the rest does not even load, is the first finding."""
    if sys.version_info < _OLDEST_PYTHON:
        print(
            "BLOCKS: this is Python {}.{}\n  why: the build and the embedded tritonserver need Python 3.11\n"
            "  fix: install Python 3.11, and run make doctor PYTHON=/path/to/python3.11".format(*sys.version_info[:2])
        )
        return 1
    from gdino_build.doctor.command import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
