"""Triton adapter: IMAGE and PROMPT to the tensors that the text encoder and the detector read."""

from typing import Any

from gdino_core import contract
from gdino_core.draining import check_accepting
from gdino_core.image import preprocess_image
from gdino_core.prompt import encode_prompt, load_tokenizer, prompt_from_bytes
from gdino_core.settings import PreprocessSettings
from gdino_core.triton_adapter import Arrays, answer_each, input_arrays, read_parameters


class TritonPythonModel:
    """Prepares pictures and prompts one by one."""

    def initialize(self, args: dict[str, str]) -> None:
        self._settings = PreprocessSettings.from_parameters(read_parameters(args["model_config"]))
        load_tokenizer()  # else the first request waits for it

    def execute(self, requests: list[Any]) -> list[Any]:
        return answer_each(requests, self._answer)

    def _answer(self, request: Any) -> Arrays:
        check_accepting()
        inputs = input_arrays(request, (contract.IMAGE, contract.PROMPT))
        texts = prompt_from_bytes(inputs[contract.PROMPT][0])
        prompt = encode_prompt(texts, self._settings.text_buckets)
        image = preprocess_image(inputs[contract.IMAGE][0, 0], self._settings)
        return {
            contract.PIXELS: image.pixels[None],
            contract.VALID_HW: image.valid_hw[None],
            contract.IMAGE_HW: image.image_hw[None],
            contract.INPUT_IDS: prompt.input_ids[None],
            contract.POSITION_IDS: prompt.position_ids[None],
            contract.PHRASE_IDS: prompt.phrase_ids[None],
        }
