"""Each resolution bucket has a profile of its own, in which nothing but batch and tokens varies."""

import pytest

from gdino_build.tensorrt.optimisation_profiles import Buckets, ShapeRange, buckets_to_profiles
from gdino_core.errors import ConfigError, ExportError

DETECTOR = {"PIXELS": ("batch", 3, "height", "width"), "VALID_HW": ("batch", 2), "PHRASE_IDS": ("batch", "tokens")}
BUCKETS = Buckets(resolutions=((800, 1088), (1088, 800)), tokens=(16, 64, 256), max_batch_size=4)


def test_height_and_width_are_fixed_in_each_profile_so_that_tensorrt_can_fold_them() -> None:
    profiles = buckets_to_profiles(DETECTOR, BUCKETS)
    assert [profile["PIXELS"] for profile in profiles] == [
        ShapeRange(min=(1, 3, 800, 1088), opt=(1, 3, 800, 1088), max=(4, 3, 800, 1088)),
        ShapeRange(min=(1, 3, 1088, 800), opt=(1, 3, 1088, 800), max=(4, 3, 1088, 800)),
    ]
    for profile in profiles:
        assert profile["VALID_HW"] == ShapeRange(min=(1, 2), opt=(1, 2), max=(4, 2))
        assert profile["PHRASE_IDS"] == ShapeRange(min=(1, 16), opt=(1, 16), max=(4, 256))


def test_a_graph_that_sees_no_picture_has_one_profile() -> None:
    assert buckets_to_profiles({"INPUT_IDS": ("batch", "tokens")}, BUCKETS) == [
        {"INPUT_IDS": ShapeRange(min=(1, 16), opt=(1, 16), max=(4, 256))}
    ]


def test_the_sizes_to_be_fastest_at_can_be_chosen() -> None:
    buckets = Buckets(resolutions=((64, 64),), tokens=(16, 32), max_batch_size=8, opt_batch_size=4, opt_tokens=32)
    (profile,) = buckets_to_profiles({"INPUT_IDS": ("batch", "tokens")}, buckets)
    assert profile["INPUT_IDS"].opt == (4, 32)


def test_a_graph_whose_sizes_are_all_fixed_has_no_profile() -> None:
    assert buckets_to_profiles({"PIXELS": (1, 3, 64, 64)}, BUCKETS) == []


def test_an_axis_without_a_range_is_refused_by_its_name() -> None:
    with pytest.raises(ExportError, match=r"axis named 'queries'(.|\n)*batch, tokens, height, width"):
        buckets_to_profiles({"PIXELS": ("batch", "queries")}, BUCKETS)


def test_ranges_out_of_order_are_refused_with_their_numbers() -> None:
    with pytest.raises(ConfigError, match=r"batch range 1/8/4 is not ordered"):
        Buckets(resolutions=((64, 64),), tokens=(16,), max_batch_size=4, opt_batch_size=8)
    with pytest.raises(ConfigError, match=r"token range 16/64/32 is not ordered"):
        Buckets(resolutions=((64, 64),), tokens=(16, 32), max_batch_size=4, opt_tokens=64)
    with pytest.raises(ConfigError, match="there are no buckets"):
        Buckets(resolutions=(), tokens=(16,), max_batch_size=4)
