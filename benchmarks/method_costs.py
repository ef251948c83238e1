"""What each method costs beside the baseline it extends: parameters, FLOPs, time and memory.

A training step is loss, backward and optimiser on encoded features (the frozen backbone is the same for all
and stands in a line of its own). A query is measured with its support set cached, and the support set alone.
Every method runs in a process of its own, so that its peak memory is its own; times are medians of one run.

uv run python benchmarks/method_costs.py [--size 321] [--shots 1] [--bf16] [--threads 1]
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context

import torch
import tyro
from rich.console import Console
from rich.table import Table

from fewseg.backbones import BackboneConfig
from fewseg.decoders.prior import PriorMap
from fewseg.engine.optimiser import SGD
from fewseg.methods.canet import CANetConfig
from fewseg.methods.pfenet import PFENetConfig
from fewseg.methods.registry import MethodConfig
from fewseg.methods.scl import SCLCANetConfig, SCLPFENetConfig
from fewseg.methods.sdaanet import NoAttention, NoDistillation, NoGate, SDAANetConfig
from fewseg.types import EncodedShots, ImageEpisodes
from floor import measure
from workload import Workload


@dataclass(frozen=True, kw_only=True)
class CostWorkload:
    """What to measure.

    Attributes:
        size: side of the input, pixels; 8k + 1.
        channels: d.
        shots: K, of the training episodes and of the support set.
        batch: episodes a training step.
        bf16: autocast to bfloat16.
        threads: CPU threads; 0 leaves torch's own choice.
        repeat: times a part is measured.
    """

    size: int = 321
    channels: int = 256
    shots: int = 1
    batch: int = 4
    bf16: bool = False
    threads: int = 0
    repeat: int = 3


@dataclass(frozen=True)
class Cost:
    """One line: seconds, GFLOPs and MiB."""

    parameters: int
    step_seconds: float
    step_flops: int
    step_memory: int
    query_seconds: float
    query_flops: int
    query_memory: int
    support_seconds: float
    support_flops: int


def configs(work: CostWorkload) -> dict[str, tuple[MethodConfig, str]]:
    """Name -> (config, the baseline that it extends)."""
    cells = (work.size - 1) // 8 + 1
    deep = BackboneConfig(weights=None, levels=("layer2", "layer3", "layer4"))
    pfenet = {
        "backbone": deep,
        "channels": work.channels,
        "prior": PriorMap(),
        "scales": (cells, cells // 2, cells // 4, cells // 8),
    }
    canet = {"backbone": replace(deep, levels=("layer2", "layer3")), "channels": work.channels}
    plain = {"gate": NoGate(), "distillation": NoDistillation()}
    return {
        "PFENet": (PFENetConfig(**pfenet), ""),
        "SCL (PFENet)": (SCLPFENetConfig(**pfenet), "PFENet"),
        "PFENet + SAAM": (SDAANetConfig(**pfenet, **plain), "PFENet"),
        "PFENet + SDPM": (SDAANetConfig(**pfenet, attention=NoAttention()), "PFENet"),
        "SD-AANet": (SDAANetConfig(**pfenet), "PFENet"),
        "CANet": (CANetConfig(**canet), ""),
        "SCL (CANet)": (SCLCANetConfig(**canet), "CANet"),
    }


def cost(name: str, work: CostWorkload) -> Cost:
    """Measures one method; meant for a fresh process."""
    if work.threads:
        torch.set_num_threads(work.threads)
    torch.manual_seed(0)
    model = configs(work)[name][0].build().to(memory_format=torch.channels_last)
    rendered = Workload(size=work.size, shots=work.shots, bf16=work.bf16)
    images, masks = rendered.episodes(rendered.source(), work.batch)
    episodes = ImageEpisodes(
        support_images=images[:, :-1],
        support_masks=masks[:, :-1],
        query_images=images[:, -1],
        query_masks=masks[:, -1],
    )
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = SGD().build(trained)
    with rendered.autocast():
        encoded = model.encode_episodes(episodes)
        assert isinstance(encoded.support, EncodedShots)
        first = replace(
            encoded.support,
            features=encoded.support.features.select(slice(work.shots)),
            masks=encoded.support.masks[:1],
        )
        query = encoded.query.select(slice(1))
        model.eval()
        with torch.no_grad():
            state = model.encode_support(first)
            queried, query_memory = peak(lambda: measure(lambda: model.segment(query, state), work.repeat))
            supported = measure(lambda: model.encode_support(first), work.repeat)
        model.train()

        def step() -> None:
            optimiser.zero_grad()
            model.training_losses(encoded).total.backward()
            optimiser.step()

        stepped, step_memory = peak(lambda: measure(step, work.repeat))
    return Cost(
        parameters=sum(p.numel() for p in trained),
        step_seconds=stepped.seconds,
        step_flops=stepped.flops,
        step_memory=step_memory,
        query_seconds=queried.seconds,
        query_flops=queried.flops,
        query_memory=query_memory,
        support_seconds=supported.seconds,
        support_flops=supported.flops,
    )


def peak(work: Callable[[], object]):
    """The work's result, and the bytes by which its process (or the GPU) grew beyond what it held before.

    On the CPU the process's own mark is used, which falls for no work: measure the smaller work first.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        found = work()
        return found, torch.cuda.max_memory_allocated() - before
    unit = 1 if sys.platform == "darwin" else 1024
    before = _resident()
    found = work()
    return found, max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before)


def _resident() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def backbone_seconds(work: CostWorkload) -> float:
    """One image through the ResNet-50 up to layer4."""
    if work.threads:
        torch.set_num_threads(work.threads)
    model = PFENetConfig(backbone=BackboneConfig(weights=None)).build().eval()
    model.to(memory_format=torch.channels_last)
    image = torch.rand(1, 3, work.size, work.size).contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), Workload(bf16=work.bf16).autocast():
        return measure(lambda: model.extract(image), work.repeat).seconds


def main(work: CostWorkload) -> None:
    found, extends = {}, {name: base for name, (_, base) in configs(work).items()}
    alone = {"max_workers": 1, "mp_context": get_context("spawn"), "max_tasks_per_child": 1}
    with ProcessPoolExecutor(**alone) as pool:
        one_pass = pool.submit(backbone_seconds, work).result()
        for name in extends:
            found[name] = pool.submit(cost, name, work).result()
    kind = "bf16" if work.bf16 else "fp32"
    table = Table(
        title=f"{work.size} px, d = {work.channels}, {work.shots}-shot, batch {work.batch}, {kind}; in "
        "brackets the ratio to the baseline",
        caption=f"backbone, one image: {1e3 * one_pass:.0f} ms",
    )
    headings = ("method", "parameters (M)", "step ms", "step GFLOP", "step MiB")
    for heading in (*headings, "query ms", "query GFLOP", "query MiB", "support ms", "support GFLOP"):
        table.add_column(heading, justify="left" if heading == "method" else "right")
    units = {"parameters": 1e-6, "seconds": 1e3, "flops": 1e-9, "memory": 1 / (1 << 20)}
    for name, own in found.items():
        base, cells = found.get(extends[name]), []
        for field in vars(own):
            value = getattr(own, field)
            ratio = f" ({value / getattr(base, field):.2f})" if base and getattr(base, field) else ""
            cells.append(f"{value * units[field.rsplit('_')[-1]]:.{1 if 'flops' in field else 2}f}{ratio}")
        table.add_row(name, *cells)
    Console(width=200).print(table)


if __name__ == "__main__":
    main(tyro.cli(CostWorkload))
