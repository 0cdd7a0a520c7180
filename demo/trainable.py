"""The outputs that training supervises, taken from the inference module's own parts."""

from torch import Tensor

from gdino_build.model import GroundingDino
from gdino_build.model.transformer import contrastive_logits
from losses import TrainingOutputs


def training_outputs(
    model: GroundingDino,
    pixels: Tensor,
    valid_hw: Tensor,
    input_ids: Tensor,
    position_ids: Tensor,
    phrase_ids: Tensor,
) -> TrainingOutputs:
    """Run the model and keep every encoder token and every decoder layer.

    Arguments are those of `GroundingDino.encode_text` and `GroundingDino.detect`. Proposals enter the decoder
    detached, as in the original; the encoder's own boxes are not, or the proposals would learn nothing.
    """
    features = model.encode_text(input_ids, position_ids, phrase_ids)
    encoded = model.encode(pixels, valid_hw, features, position_ids, phrase_ids)
    transformer = model.transformer
    candidates, anchors = transformer.candidates(encoded.memory, encoded.geometry)
    _, boxes = transformer.propose(candidates.detach(), anchors, encoded.text, encoded.geometry)
    layers = model.decode(encoded, boxes.detach())
    return TrainingOutputs(
        encoder_logits=contrastive_logits(candidates, encoded.text),
        encoder_boxes=(transformer.enc_out_bbox_embed(candidates) + anchors).sigmoid(),
        encoder_valid=encoded.geometry.proposable,
        decoder_logits=[logits for logits, _ in layers],
        decoder_boxes=[boxes for _, boxes in layers],
        token_mask=phrase_ids >= 0,
    )
