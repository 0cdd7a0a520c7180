"""The commands of `gdino-build`, a module for each kind; `cli` puts them together.

stage        what they share
checkpoints  weights, doctor-checkpoint
pipeline     from checkpoint to a served repository: weights-stamp export clean precision engine engines
                 assemble serve
graphs       what is in a graph: inspect sensitivity ranges specialise flops
measure      what is served: verify evaluate accuracy bench-engine gpu-check
"""
