"""What the model.py adapters share: reading config.pbtxt, and one answer or one error for each request.

`triton_python_backend_utils` exists only inside Triton's Python backend, so it is imported when it is used and
everything here can be imported, and tested with a stand-in, anywhere.
"""

import json
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gdino_core.contract import check_contract_version
from gdino_core.errors import GdinoError, InputError, ServerStopping
from gdino_core.step_metrics import INTERNAL, INVALID_ARGUMENT, UNAVAILABLE

Arrays = Mapping[str, npt.NDArray[Any]]


def read_parameters(model_config: str) -> dict[str, str]:
    """Return the `parameters` of a config.pbtxt.

    Args:
        model_config: the configuration as JSON, as Triton gives it to `initialize`.

    Raises:
        ConfigError: it was written for another version of the tensor contract.
    """
    entries = json.loads(model_config).get("parameters", {})
    parameters = {name: str(entry["string_value"]) for name, entry in entries.items()}
    check_contract_version(parameters)
    return parameters


def input_arrays(request: Any, names: Iterable[str]) -> dict[str, npt.NDArray[Any]]:
    """Return the named inputs of a request, each with its batch axis; absent optional ones are left out."""
    import triton_python_backend_utils as pb_utils

    tensors = {name: pb_utils.get_input_tensor_by_name(request, name) for name in names}
    return {name: tensor.as_numpy() for name, tensor in tensors.items() if tensor is not None}


def answer_each(
    requests: Sequence[Any], answer: Callable[[Any], Arrays], count_error: Callable[[str], None]
) -> list[Any]:
    """Answer requests one by one, so that a bad one spoils only itself.

    Args:
        requests: what Triton gives to `execute`.
        answer: turns one request into its output arrays, by name, each with its batch axis.
        count_error: is told the code of each error.

    Returns:
        One InferenceResponse for each request, with outputs or an error.
    """
    responses = []
    for request in requests:
        try:
            responses.append(to_response(answer(request)))
        except Exception as error:
            responses.append(to_error_response(error, count_error))
    return responses


def to_response(outputs: Arrays) -> Any:
    """Return an InferenceResponse that holds the arrays."""
    import triton_python_backend_utils as pb_utils

    # Triton reads the memory of an array as if it were contiguous.
    tensors = [pb_utils.Tensor(name, np.ascontiguousarray(array)) for name, array in outputs.items()]
    return pb_utils.InferenceResponse(tensors)


def to_error_response(error: Exception, count_error: Callable[[str], None]) -> Any:
    """Return an InferenceResponse that says what is wrong, count it, and log what only the operator can mend.

    An InputError becomes INVALID_ARGUMENT at the client, ServerStopping UNAVAILABLE, everything else INTERNAL.
    """
    import triton_python_backend_utils as pb_utils

    if isinstance(error, InputError):
        code, name, text = pb_utils.TritonError.INVALID_ARG, INVALID_ARGUMENT, str(error)
    elif isinstance(error, ServerStopping):
        code, name, text = pb_utils.TritonError.UNAVAILABLE, UNAVAILABLE, str(error)
    else:
        pb_utils.Logger.log_error("".join(traceback.format_exception(error)))
        known = isinstance(error, GdinoError)
        text = str(error) if known else f"{type(error).__name__} in the server; its log has the details"
        code, name = pb_utils.TritonError.INTERNAL, INTERNAL
    count_error(name)
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(text, code))


def send_response(request: Any, response: Any) -> None:
    """Answer a request now, before `execute` is done with the others; `execute` then returns None."""
    import triton_python_backend_utils as pb_utils

    request.get_response_sender().send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
