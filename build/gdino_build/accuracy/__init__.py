"""Accuracy of what is served: a data set in COCO's format through the server, for one profile or all precisions.

Open the files in this order:

    dataset         an annotation file and its pictures, checked
    answers         answers as they come, in a file that survives a kill
    scoring         AP, AP50, AP75 and AR, by pycocotools
    asking          every picture that has no answer yet, several at once
    through_server  a profile's Triton server, asked over gRPC
    emulated        FP16 graphs, emulated in ONNX Runtime
    original        the original in PyTorch, in an environment of its own
    latency         single requests, interleaved
    evaluation      one profile -> out/<profile>/accuracy.json
    record          that file
    gates           what a precision may lose, and how large it may be
    gate_check      refuses a variant that is over its gate
    comparison      all precisions and the original
    table           side by side, against FP32 and the gates
    report, chart   out/accuracy.json, .md and .png
    commands        gdino-build evaluate and gdino-build accuracy
"""
