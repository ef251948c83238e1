"""Twenty families of outlines: each call draws one member of its family.

A family takes a stream and returns its rings, outer outlines first and holes after them, as points
in the unit frame: x to the right, y down, the shape inside about [-1, 1] squared. What is typical
of a class is the plan (a bottle has a neck below a cap); what varies within it are the
proportions, the number of repeated parts, and a smooth bend of the whole outline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from fewseg.data.synthetic.outlines import Outline, box, circle, mirrored, polar
from fewseg.data.synthetic.stream import Stream

Family = Callable[[Stream], Outline]


def arrow(s: Stream) -> Outline:
    """A shaft and a triangular head."""
    neck, shaft = s.uniform(-0.2, 0.15), s.uniform(0.26, 0.4)
    barb = s.uniform(0.0, 0.2)
    half = [(0.0, -1.0), (s.uniform(0.72, 0.92), neck + barb), (shaft, neck), (shaft, 1.0)]
    right = np.array(half)
    return Outline((np.concatenate([right, right[::-1] * [-1, 1]]),))


def bell(s: Stream) -> Outline:
    """A dome that flares to a lip, with a clapper below."""
    waist, lip = s.uniform(0.42, 0.6), s.uniform(0.8, 0.98)
    profile = [(-0.85, 0.08), (-0.7, 0.35), (-0.3, waist), (0.2, waist + 0.08), (0.6, lip), (0.72, lip)]
    knob = circle(0, -0.88, s.uniform(0.1, 0.17))
    return Outline((mirrored(profile), knob, circle(0, 0.76, s.uniform(0.16, 0.26))))


def bottle(s: Stream) -> Outline:
    """A wide body, shoulders, a narrow neck and a cap."""
    body, neck = s.uniform(0.36, 0.55), s.uniform(0.12, 0.2)
    shoulder = s.uniform(-0.35, 0.05)
    cap = neck + s.uniform(0.02, 0.08)
    profile = [
        (-1, cap),
        (-0.86, cap),
        (-0.85, neck),
        (shoulder - 0.25, neck),
        (shoulder + 0.1, body),
        (1, body),
    ]
    return Outline((mirrored(profile, smooth=s.chance(0.5)),))


def butterfly(s: Stream) -> Outline:
    """Two large upper wings, two smaller lower ones and a thin body."""
    upper, lower = s.uniform(0.46, 0.58), s.uniform(0.32, 0.44)
    tilt = s.uniform(0.75, 1.15)
    rings = [circle(0, 0.05, 0.11, 0.7)]
    for side in (-1, 1):
        rings.append(circle(side * 0.5, -0.38, upper * 0.92, upper * tilt))
        rings.append(circle(side * 0.42, 0.46, lower, lower * s.uniform(0.95, 1.25)))
    return Outline(tuple(rings))


def comb(s: Stream) -> Outline:
    """A back with a row of teeth."""
    teeth, back = 3 + s.below(3), s.uniform(-0.3, 0.0)
    fill, height = s.uniform(0.48, 0.6), s.uniform(0.6, 0.75)
    rings = [box(-1, -height, 1, back)]
    pitch = 2 / (teeth - 1 + fill)
    for i in range(teeth):
        left = -1 + i * pitch
        rings.append(box(left, back - 0.05, left + fill * pitch, height))
    return Outline(tuple(rings))


def crescent(s: Stream) -> Outline:
    """A moon: a disc less a disc that is shifted sideways."""
    shift, bite = s.uniform(0.32, 0.5), s.uniform(0.7, 0.85)
    start = np.arccos(np.clip((1 + shift**2 - bite**2) / (2 * shift), -1, 1))
    outer = np.linspace(start, 2 * np.pi - start, 60)
    tip = np.stack([np.cos(outer), np.sin(outer)], axis=1)
    half = np.arctan2(tip[0, 1], tip[0, 0] - shift)
    inner = np.linspace(2 * np.pi - half, half, 60)
    return Outline(
        (np.concatenate([tip, np.stack([shift + bite * np.cos(inner), bite * np.sin(inner)], axis=1)]),)
    )


def cross(s: Stream) -> Outline:
    """Two bars at a right angle."""
    arm, other = s.uniform(0.22, 0.36), s.uniform(0.22, 0.36)
    middle = s.uniform(-0.25, 0.05)
    return Outline((box(-arm, -1, arm, 1), box(-0.95, middle - other, 0.95, middle + other)))


def droplet(s: Stream) -> Outline:
    """A pointed top that swells into a round bottom."""
    t = np.linspace(0, 2 * np.pi, 80, endpoint=False)
    width = np.sin(t) * np.sin(t / 2) ** s.uniform(1.1, 2.2) * s.uniform(0.75, 0.95)
    return Outline((np.stack([width, -np.cos(t)], axis=1),))


def fish(s: Stream) -> Outline:
    """An oval body, a forked tail and a fin on the back."""
    height, tail = s.uniform(0.42, 0.58), s.uniform(0.42, 0.62)
    rings = [circle(-0.25, 0, 0.75, height)]
    rings.append(np.array([(0.3, 0), (1, -tail), (s.uniform(0.7, 0.85), 0), (1, tail)]))
    back = s.uniform(-0.2, 0.1)
    rings.append(
        np.array([(back - 0.3, -0.6 * height), (back + 0.25, -height - 0.28), (back + 0.4, -0.4 * height)])
    )
    return Outline(tuple(rings))


def flower(s: Stream) -> Outline:
    """Round petals about a centre."""
    petals, reach = 5 + s.below(4), s.uniform(0.54, 0.7)
    petal = max(reach * np.sin(np.pi / petals), 0.27) * s.uniform(0.88, 1.08)
    rings = [circle(0, 0, reach * 0.95)]
    for k in range(petals):
        angle = 2 * np.pi * k / petals
        rings.append(circle(reach * np.sin(angle), -reach * np.cos(angle), petal))
    return Outline(tuple(rings))


def gear(s: Stream) -> Outline:
    """A toothed wheel with a hole for the axle."""
    teeth, depth = 7 + s.below(5), s.uniform(0.18, 0.28)
    wave = np.cos(np.linspace(0, 2 * np.pi * teeth, 40 * teeth, endpoint=False))
    radius = 1 - depth + depth * np.clip(0.5 + wave * s.uniform(1.5, 4), 0, 1)
    return Outline((polar(radius),), (circle(0, 0, s.uniform(0.22, 0.38)),))


def heart(s: Stream) -> Outline:
    """Two lobes above a point."""
    t = np.linspace(0, 2 * np.pi, 80, endpoint=False)
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16
    return Outline((np.stack([np.sin(t) ** 3 * s.uniform(0.85, 1.1), y * s.uniform(0.85, 1.1)], axis=1),))


def hourglass(s: Stream) -> Outline:
    """Two bulbs joined at a waist, between two plates."""
    wide, waist = s.uniform(0.5, 0.68), s.uniform(0.08, 0.18)
    plate = wide + s.uniform(0.06, 0.16)
    profile = [(-0.9, wide), (-0.55, wide * 0.95), (0, waist), (0.55, wide * 0.95), (0.9, wide)]
    bars = (box(-plate, -1, plate, -0.8), box(-plate, 0.8, plate, 1))
    return Outline((mirrored(profile, smooth=s.chance(0.6)), *bars))


def house(s: Stream) -> Outline:
    """Walls, a gabled roof, a chimney and a door."""
    wall, eaves = s.uniform(0.6, 0.75), s.uniform(-0.25, 0.0)
    roof = np.array([(-wall - 0.18, eaves), (0, -1), (wall + 0.18, eaves)])
    side, door = s.uniform(0.3, 0.45), s.uniform(0.14, 0.22)
    shift = s.uniform(-0.3, 0.3)
    chimney = box(side, -0.85, side + 0.2, eaves)
    return Outline(
        (box(-wall, eaves - 0.02, wall, 0.9), roof, chimney), (box(shift - door, 0.3, shift + door, 0.92),)
    )


def key(s: Stream) -> Outline:
    """A round bow with a hole, a shaft and a bit of two or three teeth."""
    bow, shaft = s.uniform(0.42, 0.54), s.uniform(0.15, 0.22)
    rings = [circle(-0.58, 0, bow), box(-0.4, -shaft, 1, shaft)]
    teeth = 2 + s.below(2)
    for k in range(teeth):
        right = 1 - 0.26 * k
        rings.append(box(right - 0.16, 0, right, s.uniform(0.42, 0.6)))
    return Outline(tuple(rings), (circle(-0.6, 0, bow * s.uniform(0.38, 0.52)),))


def leaf(s: Stream) -> Outline:
    """A blade with a wavy edge, pointed at both ends, on a stalk."""
    y = np.linspace(-1, 0.7, 50)
    t = (y + 1) / 1.7
    width = np.sin(np.pi * t ** s.uniform(0.75, 1.2)) * s.uniform(0.5, 0.68)
    width *= 1 + s.uniform(0.0, 0.14) * np.cos(2 * np.pi * t * (4 + s.below(4)))
    right = np.stack([width, y], axis=1)
    blade = np.concatenate([right, right[::-1] * [-1, 1]])
    return Outline((blade, box(-0.07, 0.5, 0.07, 1)))


def mushroom(s: Stream) -> Outline:
    """A domed cap on a stem."""
    rim, stem = s.uniform(-0.1, 0.15), s.uniform(0.2, 0.34)
    angle = np.linspace(np.pi, 2 * np.pi, 40)
    dome = np.stack([0.95 * np.cos(angle), rim + (rim + s.uniform(0.75, 0.95)) * np.sin(angle)], axis=1)
    foot = stem * s.uniform(1.0, 1.5)
    return Outline((dome, np.array([(-stem, rim - 0.05), (stem, rim - 0.05), (foot, 0.95), (-foot, 0.95)])))


def ring(s: Stream) -> Outline:
    """A band around a large opening."""
    squash, hole = s.uniform(0.75, 1.0), s.uniform(0.5, 0.64)
    return Outline((circle(0, 0, 1, squash),), (circle(0, 0, hole, hole * squash),))


def star(s: Stream) -> Outline:
    """Five to seven straight points."""
    points, inner = 5 + s.below(3), s.uniform(0.42, 0.58)
    return Outline((polar(np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)),))


def tree(s: Stream) -> Outline:
    """A conifer: two or three stacked triangles on a trunk."""
    tiers, width = 2 + s.below(2), s.uniform(0.75, 0.95)
    rings = [box(-0.13, 0.5, 0.13, 1)]
    for k in range(tiers):
        top = -1 + 1.25 * k / (tiers + 0.5)
        half = width * (k + 1.6) / (tiers + 0.6)
        rings.append(
            np.array([(0, top), (half, -1 + 1.7 * (k + 1) / tiers), (-half, -1 + 1.7 * (k + 1) / tiers)])
        )
    return Outline(tuple(rings))


FAMILIES: Mapping[str, Family] = {
    f.__name__: f
    for f in (
        *(arrow, bell, bottle, butterfly, comb),
        *(crescent, cross, droplet, fish, flower),
        *(gear, heart, hourglass, house, key),
        *(leaf, mushroom, ring, star, tree),
    )
}
