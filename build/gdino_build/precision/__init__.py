"""Precision as a property of the ONNX file: types of FP16 or BF16, or INT8 around products, written into the graph.

Open the files in this order:

    variants            the graphs of one precision, from the cleaned ones
    policy              what stays FP32, and why
    groups              layers of one kind, which it speaks of
    lowering            types and casts for chosen nodes; the rest stays FP32
    quantisation        INT8 around products with weights
    calibration         the ranges that INT8 covers, from pictures
    calibration_data    these pictures and their prompts
    emulation           a graph that computes in FP32 what the lowered one computes, rounding after every operator
    ranges              how large numbers become, so that FP16 cannot overflow
    sensitivity         what the answers lose when one group of nodes alone is lowered
    sensitivity_report  that as a table, JSON and a chart
"""

from gdino_core import contract

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
LOW_PRECISIONS = ("fp16", "bf16")
GRAPHS = (contract.MODEL_TEXT_ENCODER, contract.MODEL_DETECTOR)
