"""Which joint of a network stands for which joint of a data set, where the two have different joint sets.

Never guessed: a suite says so (`data: {joints: common}`, or a mapping), and the record holds what was evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from harness.errors import SuiteError, unknown_name
from harness.pose.skeletons import SKELETONS, Skeleton

__all__ = ["Asked", "JointMap", "joint_map"]

Asked = Literal["common"] | Mapping[str, str] | None
_OPTION = "data: {joints: common} evaluates the joints that both name; data: {joints: {DATA_JOINT: NETWORK_JOINT, ...}}"


@dataclass(frozen=True)
class JointMap:
    """`pairs`: (joint of the data set, joint of the network) in the data set's order; other joints are left out."""

    data: Skeleton
    network: Skeleton
    pairs: tuple[tuple[str, str], ...]

    @cached_property
    def evaluated(self) -> Skeleton:
        """The data set's joints that are evaluated."""
        return self.data.only([name for name, _ in self.pairs])

    @cached_property
    def data_rows(self) -> np.ndarray:
        """(E,) int64: index of each evaluated joint in the data set."""
        return np.array([self.data.joints.index(name) for name, _ in self.pairs], dtype=np.int64)

    @cached_property
    def network_rows(self) -> np.ndarray:
        """(E,) int64: index of each evaluated joint in the network's output."""
        return np.array([self.network.joints.index(name) for _, name in self.pairs], dtype=np.int64)

    def to_json(self) -> dict[str, Any]:
        """What a record says of the joints that were evaluated."""
        named = [name for name, _ in self.pairs]
        return {
            "network": self.network.name,
            "data": self.data.name,
            "mapping": dict(self.pairs),
            "evaluated": named,
            "left_out": [name for name in self.data.joints if name not in named],
            "sigmas": list(self.evaluated.sigmas),
        }

    @classmethod
    def from_json(cls, data: Skeleton, written: Mapping[str, Any]) -> JointMap:
        """The map that a record holds; `data` is the whole joint set of the data set. KeyError for another one."""
        return cls(data, SKELETONS[written["network"]], tuple(dict(written["mapping"]).items()))


def joint_map(data: Skeleton, network: Skeleton, asked: Asked, where: str = "") -> JointMap | None:
    """The map between two joint sets, None where they are the same and nothing else is asked for.

    Raises SuiteError when they differ and nothing is asked for, when a joint is unknown, and when none is left.
    """
    if asked is None:
        if data.joints == network.joints:
            return None
        raise SuiteError(
            f"the network has {network.num_joints} joints, asked for {data.num_joints}: it has those of {network.name} "
            f"({', '.join(network.joints)}), the data set those of {data.name} ({', '.join(data.joints)})",
            where=where,
            expected="weights of a network with the data set's joints",
            hint=_OPTION,
        )
    pairs = {name: name for name in data.joints if name in network.joints} if asked == "common" else dict(asked)
    for kind, skeleton, names in (("data set", data, pairs), ("network", network, pairs.values())):
        for name in names:
            if name not in skeleton.joints:
                what, hint = unknown_name(f"joint of the {kind} ({skeleton.name})", name, skeleton.joints)
                raise SuiteError(what, where=where or "data.joints", hint=hint)
    if not pairs:
        raise SuiteError(f"no joint is common to {network.name} and {data.name}", where=where, hint=_OPTION)
    return JointMap(data, network, tuple((name, pairs[name]) for name in data.joints if name in pairs))
