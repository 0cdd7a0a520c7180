"""The count of small operators tells arithmetic on sizes and copies from work and from what costs nothing."""

import numpy as np

from gdino_build.small_operators import CORES, MAKERS, MOVERS, VIEWS, OperatorCounts, count_operators, format_counts
from tests.pipeline.graphs import Builder


def test_no_operator_is_in_two_classes() -> None:
    assert len(CORES | VIEWS | MOVERS | MAKERS) == sum(map(len, (CORES, VIEWS, MOVERS, MAKERS)))


def test_arithmetic_on_sizes_is_told_from_the_same_operators_on_numbers() -> None:
    build = Builder(["batch", 3])
    rows = build.size(build.x, 0)  # Shape, Gather, Unsqueeze
    doubled = build.add("Mul", rows, np.array([2]))
    target = build.add("Concat", doubled, np.array([3]), axis=0)
    twice = build.add("Concat", build.add("Mul", build.x, np.array(2, np.float32)), build.x, axis=0)
    product = build.add("MatMul", build.add("Reshape", twice, target), np.ones((3, 4), np.float32))
    model = build.done(build.add("Relu", product))
    found = count_operators(model.graph)
    assert found == OperatorCounts(nodes=10, size_arithmetic=5, movers=1, views=1, cores=1, fusable=2, forbidden=1)
    assert found.small == 6


def test_constant_nodes_are_no_nodes_and_what_is_made_of_them_is_of_sizes() -> None:
    build = Builder([3])
    three = build.add("Constant", value_int=3)
    ramp = build.add("Cast", build.add("Range", np.array(0), three, np.array(1)), to=1)
    found = count_operators(build.done(build.add("Add", build.x, ramp)).graph)
    assert (found.nodes, found.size_arithmetic, found.fusable, found.forbidden) == (3, 2, 1, 1)


def test_the_table_has_a_row_for_each_graph() -> None:
    counts = OperatorCounts(nodes=10, size_arithmetic=5, movers=2, views=1, cores=1, fusable=1, forbidden=3)
    head, row = format_counts({"cleaned": counts}).splitlines()
    assert head.split() == ["nodes", "small", "size", "movers", "views", "cores", "fusable", "forbidden"]
    assert row.split() == ["cleaned", "10", "7", "5", "2", "1", "1", "1", "3"]
