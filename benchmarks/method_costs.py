"""What each method costs beside the baseline it extends: parameters, FLOPs, time and memory.

A training step is loss, backward and optimiser on encoded features. A query is measured with its support set
cached, and the support set alone: a query whose support is not cached costs both. What is frozen and the same
for all is in the lines below the table: the backbone of an image, which no row has, and the prior's layer4
over masked supports, which the steps and support sets of PFENet and of what extends it have; take it off
before you read a ratio as that of the heads.

Memory is the peak of what torch allocates beyond weights, features and state (on a CPU without the workspace
that a library takes past torch's allocator). Times are medians of one run: leave the machine alone.

uv run python benchmarks/method_costs.py [--size 321] [--shots 1] [--bf16] [--threads 1]
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import accumulate
from multiprocessing import get_context

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from fewseg.backbones import BackboneConfig
from fewseg.engine.train_config import SGD
from fewseg.methods.canet import CANetConfig
from fewseg.methods.layers import PriorMap
from fewseg.methods.pfenet import PFENetConfig
from fewseg.methods.registry import MethodConfig
from fewseg.methods.scl import SCLCANetConfig, SCLPFENetConfig
from fewseg.methods.sdaanet import NoAttention, NoDistillation, NoGate, SDAANetConfig
from fewseg.types import EncodedEpisodes, EncodedShots, ImageEpisodes
from floor import Measured, measure
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
    repeat: int = 5


@dataclass(frozen=True)
class Cost:
    """One line: seconds, FLOPs and bytes."""

    parameters: int
    step_seconds: float
    step_flops: int
    step_memory: int
    query_seconds: float
    query_flops: int
    query_memory: int
    support_seconds: float
    support_flops: int
    support_memory: int


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
    model, rendered, encoded = prepared(configs(work)[name][0], work)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = SGD().build(trained)
    first, query = one_set(encoded), encoded.query.select(slice(1))

    def segment() -> object:
        with torch.no_grad(), rendered.autocast():
            return model.segment(query, state)

    def encode() -> object:
        with torch.no_grad(), rendered.autocast():
            return model.encode_support(first)

    def step() -> None:
        optimiser.zero_grad()
        with rendered.autocast():
            total = model.training_losses(encoded).total
        total.backward()
        optimiser.step()

    model.eval()
    state = encode()
    queried, supported = measure(segment, work.repeat), measure(encode, work.repeat)
    query_memory, support_memory = peak(segment), peak(encode)
    model.train()
    stepped = measure(step, work.repeat)
    optimiser.zero_grad()  # gradients are of the step's memory
    step_memory = peak(step)
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
        support_memory=support_memory,
    )


def prepared(config: MethodConfig, work: CostWorkload):
    """A method on its device, the rendered pictures' workload, and a batch of encoded episodes."""
    if work.threads:
        torch.set_num_threads(work.threads)
    torch.manual_seed(0)
    rendered = Workload(size=work.size, shots=work.shots, bf16=work.bf16)
    model = config.build().to(rendered.device, memory_format=torch.channels_last)
    images, masks = rendered.episodes(rendered.source(), work.batch)
    episodes = ImageEpisodes(
        support_images=images[:, :-1],
        support_masks=masks[:, :-1],
        query_images=images[:, -1],
        query_masks=masks[:, -1],
    )
    with torch.no_grad(), rendered.autocast():
        return model, rendered, model.encode_episodes(episodes)


def one_set(episodes: EncodedEpisodes) -> EncodedShots:
    """The first episode's support set."""
    support = episodes.support
    features = support.features.select(slice(support.shots))
    return EncodedShots(features=features, masks=support.masks[:1])


def peak(work: Callable[[], object]) -> int:
    """The bytes by which what torch has allocated grows at most while the work runs."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = profiler.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return max(accumulate((change for _, change in changes), initial=0))


def shared(work: CostWorkload) -> dict[str, Measured]:
    """What is frozen and the same for all methods; meant for a fresh process."""
    model, rendered, encoded = prepared(configs(work)["PFENet"][0], work)
    image = torch.rand(1, 3, work.size, work.size, device=rendered.device)
    image = image.contiguous(memory_format=torch.channels_last)
    shallow = configs(work)["CANet"][0].build().eval().to(rendered.device, memory_format=torch.channels_last)
    model.eval()
    prior, step, single = model.config.prior, encoded.support, one_set(encoded)

    def keys(support: EncodedShots) -> object:
        return prior.keys(support.features, support.masks.flatten(0, 1), model.backbone.rerun)

    with torch.no_grad(), rendered.autocast():
        return {
            "backbone to layer4, one image": measure(lambda: model.extract(image), work.repeat),
            "backbone to layer3, one image": measure(lambda: shallow.extract(image), work.repeat),
            "prior's keys, a step's supports": measure(lambda: keys(step), work.repeat),
            "prior's keys, one support set": measure(lambda: keys(single), work.repeat),
        }


def main(work: CostWorkload) -> None:
    found, extends = {}, {name: base for name, (_, base) in configs(work).items()}
    alone = {"max_workers": 1, "mp_context": get_context("spawn"), "max_tasks_per_child": 1}
    with ProcessPoolExecutor(**alone) as pool:
        frozen = pool.submit(shared, work).result()
        for name in extends:
            found[name] = pool.submit(cost, name, work).result()
    kind = "bf16" if work.bf16 else "fp32"
    table = Table(
        title=f"{work.size} px, d = {work.channels}, {work.shots}-shot, batch {work.batch}, {kind}; in "
        "brackets the ratio to the baseline",
        caption="\n".join(
            f"{part}: {1e3 * m.seconds:.1f} ms, {1e-9 * m.flops:.2f} GFLOP" for part, m in frozen.items()
        ),
    )
    table.add_column("method")
    table.add_column("parameters (M)", justify="right")
    for part in ("step", "query", "support"):
        for unit in ("ms", "GFLOP", "MiB"):
            table.add_column(f"{part} {unit}", justify="right")
    units = {"parameters": 1e-6, "seconds": 1e3, "flops": 1e-9, "memory": 1 / (1 << 20)}
    for name, own in found.items():
        base, cells = found.get(extends[name]), []
        for field in vars(own):
            value = getattr(own, field)
            ratio = f" ({value / getattr(base, field):.2f})" if base and getattr(base, field) else ""
            cells.append(f"{value * units[field.rsplit('_')[-1]]:.2f}{ratio}")
        table.add_row(name, *cells)
    Console(width=220).print(table)


if __name__ == "__main__":
    main(tyro.cli(CostWorkload))
