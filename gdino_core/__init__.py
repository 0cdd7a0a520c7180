"""What the server, the build and the clients share.

contract    names and version of the tensors that travel between them
errors      the one tree of errors
settings    how pictures and prompts are prepared, as it travels in config.pbtxt
image       encoded picture -> PIXELS, VALID_HW, IMAGE_HW
prompt      caption or labels -> INPUT_IDS, POSITION_IDS, PHRASE_IDS
detections  LOGITS, BOXES_CXCYWH -> BOXES, SCORES, LABELS, LABEL_INDEX

Needs the standard library, numpy, Pillow and tokenizers, never a deep learning framework.
"""
