"""Many names of tensors as few lines: whole sub-trees and layers that differ by number become one."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

_NUMBER = re.compile(r"(?<![^.])(\d+)(?![^.])")  # a whole part of a name


@dataclass(frozen=True, kw_only=True)
class Folded:
    """One line for several tensors.

    Attributes:
        pattern: `layers.{0..5}.norm1.weight`, or `transformer.encoder.*` for a whole sub-tree.
        names: of all tensors that it stands for.
    """

    pattern: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        """The pattern, and how many tensors it stands for if these are several."""
        return self.pattern if len(self.names) == 1 else f"{self.pattern} ({len(self.names)} tensors)"


def fold(names: Collection[str], universe: Collection[str]) -> list[Folded]:
    """Stand for names by as few patterns as say them exactly.

    Args:
        names: in any order.
        universe: all names that there are: a sub-tree is whole when none of its names is left out.

    Returns:
        Patterns in the order of the names; each name is in exactly one.
    """
    return fold_numbers(_whole_subtrees(names, universe))


def fold_numbers(entries: Iterable[tuple[str, tuple[str, ...]]]) -> list[Folded]:
    """Join patterns that differ by one number.

    Args:
        entries: patterns, and the names that each stands for.
    """
    parts = [(tuple(_NUMBER.split(pattern)), names) for pattern, names in entries]
    longest = max((len(split) for split, _ in parts), default=0)
    for place in range(1, longest, 2):  # every second part is a number
        groups: defaultdict[tuple[str, ...], list[tuple[str, tuple[str, ...]]]] = defaultdict(list)
        for split, names in parts:
            number = split[place] if place < len(split) else ""
            groups[(*split[:place], "", *split[place + 1 :])].append((number, names))
        parts = [
            (
                (*split[:place], _range([number for number, _ in members]), *split[place + 1 :]),
                tuple(name for _, names in members for name in names),
            )
            for split, members in groups.items()
        ]
    return [Folded(pattern="".join(split), names=names) for split, names in parts]


def _range(numbers: list[str]) -> str:
    """`3`, `{0..5}` or `{0,2,5}`."""
    if len(numbers) == 1:
        return numbers[0]
    ordered = sorted(map(int, numbers))
    if ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"{{{ordered[0]}..{ordered[-1]}}}"
    return f"{{{','.join(map(str, ordered))}}}"


def _whole_subtrees(names: Collection[str], universe: Collection[str]) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Each name, or its largest sub-tree of which all names are among them."""
    wanted = set(names)
    below: defaultdict[str, int] = defaultdict(int)
    chosen: defaultdict[str, int] = defaultdict(int)
    for name in universe:
        for subtree in _subtrees(name):
            below[subtree] += 1
            chosen[subtree] += name in wanted
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        whole = [tree for tree in _subtrees(name) if below[tree] == chosen[tree] > 1]
        same = [tree for tree in whole if below[tree] == below[whole[0]]]  # the last one says most
        groups[same[-1] if same else name].append(name)
    return [(pattern, tuple(members)) for pattern, members in groups.items()]


def _subtrees(name: str) -> list[str]:
    """Patterns of the sub-trees that a name is in, the largest (`*`) first."""
    parts = name.split(".")
    return ["*"] + [".".join(parts[:end]) + ".*" for end in range(1, len(parts))]
