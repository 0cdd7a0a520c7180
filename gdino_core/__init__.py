"""What the server, the build and the clients share.

contract    names and version of the tensors that travel between them
errors      the one tree of errors
settings    how pictures and prompts are prepared, as it travels in config.pbtxt
image       encoded picture -> PIXELS, VALID_HW, IMAGE_HW
prompt      caption or labels -> INPUT_IDS, POSITION_IDS, PHRASE_IDS
detections  LOGITS, BOXES_CXCYWH -> BOXES, SCORES, LABELS, LABEL_INDEX

for who runs the server:

draining    accept no more requests, and answer those accepted, before it is stopped
liveness    tell whether it can still answer
manifest    tell whether a model repository is whole
plan_check  start a server, unless its plans do not fit the TensorRT and the GPUs that are there

and for the adapters in model_repository/:

step_metrics      errors and queues among the server's metrics
triton_adapter    one answer or one error for each request; read config.pbtxt
openvino_engine   run an engine, several requests in one batch
openvino_adapter  the Triton model around it

Needs the standard library, numpy, Pillow and tokenizers, openvino for an OpenVINO engine, and no training framework.
"""
