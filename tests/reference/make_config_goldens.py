"""Read configuration files with the original's own SLConfig, which runs them; runs in .venv-reference.

    python -m tests.reference.make_config_goldens [other configuration files, such as those of Open-GroundingDino]

Ours, which runs nothing, must read the same from each. Files that are not named keep what the golden has of them.
"""

import json
import sys
from pathlib import Path

import groundingdino.config
from groundingdino.util.slconfig import SLConfig

from gdino_build.original_config import read_options

_OFFICIAL = ("GroundingDINO_SwinT_OGC.py", "GroundingDINO_SwinB_cfg.py")
_OUT = Path(__file__).parents[1] / "goldens" / "original_configs.json"


def main() -> None:
    """Write tests/goldens/original_configs.json."""
    package = Path(groundingdino.config.__file__).parent
    golden = json.loads(_OUT.read_text(encoding="utf-8")) if _OUT.is_file() else {}
    for path in (*(package / name for name in _OFFICIAL), *map(Path, sys.argv[1:])):
        options = SLConfig.fromfile(str(path))._cfg_dict.to_dict()
        if read_options(path) != options:
            raise ValueError(f"{path}: the original reads {options}, ours {read_options(path)}")
        golden[path.name] = options
        print(f"{path.name}: {len(options)} options, read alike")
    _OUT.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
