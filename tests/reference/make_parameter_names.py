"""List the names and shapes of the original's parameters; runs in .venv-reference."""

import json
from pathlib import Path

from tests.reference.original.model import build_original

_MODELS = ("swint", "swinb")  # the architectures of the official checkpoints
_OUT = Path(__file__).parents[1] / "goldens" / "parameter_names.json"


def main() -> None:
    """Write tests/goldens/parameter_names.json."""
    shapes = {
        model: {name: list(tensor.shape) for name, tensor in build_original(model).state_dict().items()}
        for model in _MODELS
    }
    models = []
    for model, tensors in shapes.items():
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(shape)}" for name, shape in tensors.items())
        models.append(f"{json.dumps(model)}: {{\n{lines}\n}}")
    _OUT.write_text("{\n" + ",\n".join(models) + "\n}\n", encoding="utf-8")
    print(f"{_OUT}: {', '.join(f'{len(tensors)} of {model}' for model, tensors in shapes.items())}")


if __name__ == "__main__":
    main()
