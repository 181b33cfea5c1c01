"""Which of the targets that were shipped a host takes, and why."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sdxl_trt.bundle import Host, Manifest, Target
from sdxl_trt.bundle.hosts import GRAPHS, ON_CPU, best_target, describe, refusal
from sdxl_trt.errors import NoTargetForHost
from sdxl_trt.gpus import CPU, able_flavours, find_gpu


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A target, and why it and no other."""

    target: Target
    reason: str
    others: dict[str, str]
    """Why not, by name."""


Choose = Callable[[Manifest], Choice]


def choose_for(hosts: Sequence[Host], *, fix: str) -> Choose:
    """What chooses for the first of several hosts that anything fits; a machine with a GPU is two.

    Args:
        hosts: the preferred ones first.
        fix: what to do where nothing fits.
    """

    def choose(manifest: Manifest) -> Choice:
        for host in hosts:
            if target := best_target(manifest.targets, host):
                return _explained(target, manifest, host)
        raise NoTargetForHost(
            "nothing that was shipped there runs on this host",
            got="; ".join(f"{target.name}: {refusal(target, hosts[0])}" for target in manifest.targets),
            expected="a target for " + ", or ".join(map(describe, hosts)),
            fix=fix,
        )

    return choose


def choose_for_gpu(name: str) -> Choose:
    """What chooses for a GPU of the catalogue, or 'cpu', whatever this machine has.

    It is taken for granted that the engine libraries there are those that a target needs, and the processor is of
    this machine's kind.

    Raises:
        UnknownName: there is no such GPU.
        UsageError: there can be no engines for it.
    """
    sm = None if name == CPU else find_gpu(name).sm
    flavours = (ON_CPU,) if sm is None else able_flavours(sm)

    def choose(manifest: Manifest) -> Choice:
        newest = dict[str, str]()
        for target in sorted(manifest.targets, key=lambda target: _numbers(target.flavour_version)):
            if target.flavour in flavours:
                newest[target.flavour] = target.flavour_version
        host = Host(processor=platform.machine(), flavours=newest, sm=sm)
        return choose_for([host], fix=f"sdxl-trt build … --gpu {name}, and push that")(manifest)

    return choose


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def _explained(target: Target, manifest: Manifest, host: Host) -> Choice:
    others = {each.name: refusal(each, host) or "it would run too" for each in manifest.targets if each != target}
    if target.flavour in GRAPHS:
        reason = f"{target.flavour} takes it on any such host, and no engines of TensorRT fit"
        if target.flavour == ON_CPU:
            reason = f"it runs on any {target.processor} processor"
    elif target.sms:
        reason = f"it was built for SM {host.sm} itself"
    else:
        reason = f"it is portable, and nothing was built for SM {host.sm} itself"
    return Choice(target=target, reason=reason, others=others)
