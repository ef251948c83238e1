"""Evaluation episodes written to manifests, and read back in place of drawing them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from fewseg.data.episode_spec import EpisodeSpec
from fewseg.data.episodes import EpisodeSampler
from fewseg.data.index import Index
from fewseg.data.manifest import read_manifest, write_manifest
from fewseg.data.protocols import Protocol
from fewseg.data.source import DataError


def record(sampler: EpisodeSampler, folder: Path) -> list[Path]:
    """Writes one manifest a seed of the sampler's protocol.

    Args:
        sampler: the episodes.
        folder: where the files go.

    Returns:
        The paths, ``<protocol>-fold<F>-<K>shot-seed<S>.jsonl``, and ``-<N>way`` before the shots where there
        are several ways.

    Raises:
        OSError: a file cannot be written.
    """
    paths = []
    for seed in sampler.protocol.seeds:
        fold, shots, ways = sampler.split.fold, sampler.shots, sampler.ways
        several = f"-{ways}way" if ways > 1 else ""
        path = folder / f"{sampler.protocol.name}-fold{fold}{several}-{shots}shot-seed{seed}.jsonl"
        header = {"protocol": asdict(sampler.protocol), "fold": fold, "shots": shots, "seed": seed}
        if ways > 1:  # absent for one way, whose files are those of before there were several
            header["ways"] = ways
        write_manifest(path, sampler.episodes(seed), header)
        paths.append(path)
    return paths


class RecordedEpisodes:
    """Episodes from manifests: stands wherever an ``EpisodeSampler`` stands.

    Args:
        paths: one manifest a seed, all of one protocol, fold, N and K.
        index: the images they are replayed on.

    Raises:
        DataError: a manifest is broken, shortened or of other images, or they do not belong together.
    """

    def __init__(self, paths: Sequence[Path], index: Index) -> None:
        self._specs: dict[int, tuple[EpisodeSpec, ...]] = {}
        kinds = set()
        for path in paths:
            header, specs = read_manifest(path, index)
            try:
                stored = {**header["protocol"], "seeds": tuple(header["protocol"]["seeds"])}
                self.protocol = Protocol(**stored)
                self.fold, self.shots, seed = int(header["fold"]), int(header["shots"]), int(header["seed"])
                self.ways = int(header.get("ways", 1))
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(
                    f"manifest {path} does not say protocol, fold, shots and seed ({error}): write it with "
                    "`fewseg episodes`"
                ) from error
            self._check_whole(path, specs)
            kinds.add((self.protocol.digest(), self.fold, self.shots, self.ways))
            self._specs[seed] = specs
        if len(kinds) != 1 or len(self._specs) != len(paths):
            raise DataError(
                f"the manifests {[p.name for p in paths]} are of different protocols, folds, ways or shots, "
                "or two of one seed: give one file a seed of one recording"
            )
        missing = sorted(set(self.protocol.seeds) - set(self._specs))
        if missing:
            raise DataError(
                f"the recording has seeds {self.protocol.seeds}; manifests of {missing} are missing"
            )

    def _check_whole(self, path: Path, specs: Sequence[EpisodeSpec]) -> None:
        """Checks that a manifest has every episode that its header announces, of so many ways and shots.

        Raises:
            DataError: it has not.
        """
        held = [("episodes", self.protocol.episodes, len(specs))]
        if specs:
            held += [("ways", self.ways, len(specs[0].ways)), ("shots", self.shots, len(specs[0].supports))]
        for what, announced, found in held:
            if announced != found:
                raise DataError(
                    f"manifest {path} announces {announced} {what} and holds {found}: it is edited; fetch or "
                    "write it again"
                )
        strange = sorted({spec.index for spec in specs} - set(range(len(specs))))
        if strange:
            raise DataError(
                f"manifest {path} has episodes {strange[:3]}, those of its protocol are 0 .. "
                f"{len(specs) - 1}: it is edited; fetch or write it again"
            )

    def episodes(self, seed: int) -> Iterator[EpisodeSpec]:
        """Yields the recorded episodes of a seed, in order."""
        return iter(self._specs[seed])


Episodes = EpisodeSampler | RecordedEpisodes
"""Drawn or recorded: what an evaluation runs on."""
