from gdino_build.server_log import failure_reasons, warm_up_step

# Lines of tritonserver 2.51.0, shortened.
MODEL_FAILED = r"""
I1124 02:46:43.393571 16001 cuda_memory_manager.cc:117] "CUDA memory pool disabled"
E1124 02:46:43.393728 16001 server.cc:241] "CudaDriverHelper has not been initialized."
E1124 02:46:46.775141 16001 backend_model.cc:692] "ERROR: Failed to create instance: ConfigError: version 2"
E1124 02:46:46.775335 16 a.cc:642] "failed to load 'detector' version 1: Internal: Oh: 2\n  fix: do\n\nAt:\n  b.py(6)\n"
E1124 02:46:47.987383 16001 a.cc:703] "Invalid argument: ensemble 'grounding_dino' depends on 'detector' which has none"
error: creating server: Internal - failed to load all models
"""
REPOSITORY_FAILED = r"""
E1124 02:46:43.393728 16001 server.cc:241] "CudaDriverHelper has not been initialized."
E1124 02:47:32.907893 17093 a.cc:1460] "Poll failed for model directory 'detector': failed to read text proto"
error: creating server: Internal - failed to load all models
"""


def test_failed_model_is_reported_once_without_its_stack() -> None:
    assert failure_reasons(MODEL_FAILED) == ["model detector: Oh: 2\n  fix: do"]


def test_without_a_failed_model_the_last_errors_are_reported() -> None:
    (reason,) = failure_reasons(REPOSITORY_FAILED)
    assert reason.startswith("Poll failed for model directory 'detector'")


def test_program_that_could_not_even_start_is_reported_with_its_last_words() -> None:
    log = "\ntritonserver: error while loading shared libraries: libz.so.1: cannot open shared object file\n\n"
    assert failure_reasons(log) == [log.strip()]


def test_empty_log_gives_no_reason() -> None:
    assert failure_reasons("") == []


WARMING_UP = """
I1125 23:45:11.523151 10 a.cc:363] "Generating warmup sample data for '16 tokens'"
I1125 23:45:11.523484 10 a.cc:608] "model 'text_encoder' instance text_encoder_0_0 is running warmup sample '16 tokens' for iteration 1"
I1125 23:45:18.933457 10 a.cc:363] "Generating warmup sample data for '8 of 128x160'"
I1125 23:45:18.933460 10 a.cc:608] "model 'detector' instance detector_0_0 is running warmup sample '8 of 128x160' for iteration 1"
I1125 23:45:18.933530 10 infer_request.cc:132] "[request id: <id_unknown>] Setting state from INITIALIZED to PENDING"
"""  # noqa: E501, the lines are tritonserver's


def test_what_is_warmed_up_is_told() -> None:
    assert warm_up_step("") == "loading its models"
    assert warm_up_step(WARMING_UP) == "warming up detector with 8 of 128x160"
