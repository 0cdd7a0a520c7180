"""Checkpoints: read without running code, brought to official names, loaded strictly.

Open the files in the order in which a checkpoint goes through them:

    formats          what kind of file it is, or why it is none: cut short, a web page, ...
    reading          a file, or a folder of Hugging Face's, to tensors; nothing in it runs
    hugging_face     Hugging Face's parameter names to the official ones
    names            official names: prefixes dropped, unused tensors dropped, floats FP32
    architecture     the sizes of a model, from the shapes of its tensors
    families         models that are taken for GroundingDINO's
    folding          many names as few lines
    loading          the module with the weights, or what does not fit, and why
    doctor           all of this about one file, for a person
"""

from gdino_build.checkpoint.loading import load_model
from gdino_build.checkpoint.names import canonical_state_dict
from gdino_build.checkpoint.reading import read_state_dict, weights_file, weights_files

__all__ = ["canonical_state_dict", "load_model", "read_state_dict", "weights_file", "weights_files"]
