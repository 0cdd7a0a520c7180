"""Reads the configuration files of GroundingDINO and Open-GroundingDino, which are Python, without running them.

Options that decide what a model computes must have the values that this project implements. Which options these are,
and that the others do not act when a model is evaluated, was read in the sources of both repositories.

Source: GroundingDINO, groundingdino/models/GroundingDINO: build_groundingdino(), build_transformer(),
build_backbone(), build_position_encoding(); Open-GroundingDino, models/GroundingDINO and main.py.
"""

import ast
import difflib
from dataclasses import replace
from pathlib import Path

from gdino_build.model.config import ARCHITECTURES, SWIN_BACKBONES, ModelConfig
from gdino_core.errors import ConfigError

# Whole numbers above 0.
_SIZES = ("enc_layers", "dec_layers", "dim_feedforward", "nheads", "num_queries", "enc_n_points", "dec_n_points")

# What decides what is computed, and the values that are implemented.
_SUPPORTED: dict[str, tuple[object, ...]] = {
    "modelname": ("groundingdino",),
    "backbone": tuple(SWIN_BACKBONES),
    "return_interm_indices": ([1, 2, 3],),
    "num_feature_levels": (4,),
    "position_embedding": ("sine", "v2"),  # two names of one
    "pe_temperatureH": (20,),
    "pe_temperatureW": (20,),
    "hidden_dim": (256,),  # the original has 256 written into its sine embeddings of text and boxes
    "query_dim": (4,),
    "pre_norm": (False,),
    "transformer_activation": ("relu",),
    "two_stage_type": ("standard",),
    "two_stage_bbox_embed_share": (False, True),  # shared or not, the checkpoint has the head under both names
    "dec_pred_bbox_embed_share": (True,),
    "embed_init_tgt": (True,),
    "max_text_len": (256,),  # the original reads no other value: it has 256 written into it as well
    "text_encoder_type": ("bert-base-uncased",),
    "sub_sentence_present": (True,),
    "use_text_enhancer": (True,),
    "use_fusion_layer": (True,),
    "use_text_cross_attention": (True,),
}

# What changes no number of an evaluated model, by the reason.
_WITHOUT_EFFECT = {
    "acts in training, if at all": (
        "dropout text_dropout fusion_dropout fusion_droppath backbone_freeze_keywords freeze_keywords frozen_weights "
        "dn_box_noise_scale dn_label_noise_ratio dn_label_coef dn_bbox_coef dn_labelbook_size dn_scalar batch_size "
        "epochs lr lr_backbone lr_backbone_names lr_linear_proj_mult lr_linear_proj_names lr_drop lr_drop_list "
        "multi_step_lr onecyclelr weight_decay param_dict_type ddetr_lr_param clip_max_norm save_checkpoint_interval "
        "data_aug_scales data_aug_max_size data_aug_scales2_resize data_aug_scales2_crop data_aug_scale_overlap "
        "max_labels set_cost_class set_cost_bbox set_cost_giou matcher_type focal_alpha focal_gamma cls_loss_coef "
        "bbox_loss_coef giou_loss_coef enc_loss_coef interm_loss_coef no_interm_box_loss mask_loss_coef "
        "dice_loss_coef aux_loss masks use_ema ema_decay ema_epoch match_unstable_error"
    ),
    "recomputes activations to save memory": "use_checkpoint use_transformer_ckpt",
    "picks among detections when training is evaluated; here each request does": (
        "num_select nms_iou_threshold use_coco_eval label_list"
    ),
    "acts with a ResNet, without two stages, or on heads that have no parameters": (
        "dilation num_patterns two_stage_class_embed_share"
    ),
    "left over from DINO: neither repository reads it": (
        "pdetr3_bbox_embed_diff_each_layer pdetr3_refHW random_refpoints_xy fix_refpoints_hw decoder_sa_type "
        "dabdetr_yolo_like_anchor_update dabdetr_deformable_encoder dabdetr_deformable_decoder use_deformable_box_attn "
        "box_attn_type dec_layer_number decoder_layer_noise dln_xy_noise dln_hw_noise add_channel_attention "
        "add_pos_value two_stage_pat_embed two_stage_add_query_num two_stage_learn_wh two_stage_default_hw "
        "two_stage_keep_all_tokens decoder_module_seq batch_norm_type dec_pred_class_embed_share "
        "use_detached_boxes_dec_out"
    ),
}
_KNOWN = frozenset((*_SIZES, *_SUPPORTED, *(name for names in _WITHOUT_EFFECT.values() for name in names.split())))


def find_architecture(name: str) -> ModelConfig:
    """Look up one of ARCHITECTURES, or read a configuration file of the original.

    Raises:
        ConfigError: there is neither; see `read_architecture`.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    if name.endswith(".py"):
        return read_architecture(Path(name))
    raise ConfigError(
        f"there is no architecture {name!r}", fix=f"choose one of {', '.join(ARCHITECTURES)}, or a .py of the original"
    )


def read_architecture(path: Path) -> ModelConfig:
    """Read the sizes of a model from a configuration file of the original.

    Returns:
        One of ARCHITECTURES where all sizes are equal, otherwise one that is named after the file.

    Raises:
        ConfigError: the file is no list of `name = literal`; an option is unknown or missing, or has a value that this
            project does not implement.
    """
    options = read_options(path)
    _check_known(path, options)
    for name, supported in _SUPPORTED.items():
        _check_supported(path, name, options[name], supported)
    sizes = {name: _positive(path, name, options[name]) for name in _SIZES}
    _check_sizes(path, sizes)
    config = ModelConfig(
        name=path.stem,
        swin=SWIN_BACKBONES[str(options["backbone"])],
        num_encoder_layers=sizes["enc_layers"],
        num_decoder_layers=sizes["dec_layers"],
        ffn_dim=sizes["dim_feedforward"],
        num_heads=sizes["nheads"],
        num_queries=sizes["num_queries"],
        num_points=sizes["dec_n_points"],
    )
    return next((known for known in ARCHITECTURES.values() if replace(config, name=known.name) == known), config)


def read_options(path: Path) -> dict[str, object]:
    """Read the options of a file that consists of `name = literal`; nothing in it runs.

    Raises:
        ConfigError: no such file, no Python, or a line of another kind, with its number.
    """
    try:
        statements = ast.parse(path.read_bytes()).body
    except OSError as error:
        raise ConfigError(f"configuration {path} cannot be read: {error.strerror}", fix="name a file") from error
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise ConfigError(f"{path}{line} is not Python: {error}", fix="name the original's .py") from error
    options: dict[str, object] = {}
    for statement in statements:
        where = f"{path}, line {statement.lineno}"
        match statement:
            case ast.Assign(targets=[ast.Name(id="_base_")]):
                raise ConfigError(f"{where}: _base_ takes options from other files", fix="write them into this file")
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                options[name] = _literal(where, value)
            case _:
                raise ConfigError(
                    f"{where} is not of the form name = literal: {ast.unparse(statement).splitlines()[0]}",
                    fix="write the value itself; nothing in the file is run",
                )
    return options


def _literal(where: str, value: ast.expr) -> object:
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ConfigError(
            f"{where}: {ast.unparse(value)} is not a literal", fix="write the value itself; nothing in the file is run"
        ) from error


def _check_known(path: Path, options: dict[str, object]) -> None:
    for name in options:
        if name not in _KNOWN:
            close = difflib.get_close_matches(name, _KNOWN, n=1)
            raise ConfigError(
                f"{path} has the unknown option {name} = {options[name]!r}",
                fix=f"is it {close[0]}?" if close else "remove it if it changes nothing that is computed",
            )
    for name in (*_SUPPORTED, *_SIZES):
        if name not in options:
            raise ConfigError(f"{path} lacks {name}", fix="write it as the original's configuration files do")


def _check_supported(path: Path, name: str, value: object, supported: tuple[object, ...]) -> None:
    if name == "text_encoder_type" and isinstance(value, str):
        value = Path(value).name  # a copy on the disk of its writer; the weights are those of the checkpoint
    # True equals 1, but is none.
    if not any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in supported):
        raise ConfigError(
            f"{path}: {name} is {value!r}, which this project does not implement",
            fix=f"it implements {' and '.join(map(repr, supported))}",
        )


def _positive(path: Path, name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{path}: {name} is {value!r}", fix="write a whole number above 0")
    return value


def _check_sizes(path: Path, sizes: dict[str, int]) -> None:
    heads, ffn = sizes["nheads"], sizes["dim_feedforward"]
    if sizes["enc_n_points"] != sizes["dec_n_points"]:
        raise ConfigError(
            f"{path}: enc_n_points is {sizes['enc_n_points']} and dec_n_points {sizes['dec_n_points']}",
            fix="this project implements equal numbers",
        )
    # Fusion and text layers have half the heads and half the feed-forward width.
    if heads % 2 or ffn % heads or ffn % 2 or 256 % heads:
        raise ConfigError(
            f"{path}: nheads {heads} does not divide hidden_dim 256 and dim_feedforward {ffn} into equal even parts",
            fix="choose an even nheads that divides both, such as 8",
        )
