"""Precision as a property of the ONNX file: which nodes compute in FP16 or BF16, written into the graph as types.

Open the files in this order:

    lowering            types and casts for chosen nodes; the rest stays FP32
    emulation           a graph that computes in FP32 what the lowered one computes, rounding after every operator
    sensitivity         what the answers lose when one group of nodes alone is lowered
    sensitivity_report  that as a table, JSON and a chart
"""

LOW_PRECISIONS = ("fp16", "bf16")
