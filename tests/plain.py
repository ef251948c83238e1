"""Plain implementations that several tests compare with."""

from fewseg.metrics.counts import COUNT_NAMES


def pixel_by_pixel(prediction, truth, ways):
    """The definition, spelled out: each way, then any way, on the pixels that are not ignored."""
    foregrounds = [{way} for way in range(1, ways + 1)]
    if ways > 1:
        foregrounds.append(set(range(1, ways + 1)))
    seen = {name: [0] * len(foregrounds) for name in COUNT_NAMES}
    for p, t in zip(prediction.flatten().tolist(), truth.flatten().tolist(), strict=True):
        if t == 255:
            continue
        for row, foreground in enumerate(foregrounds):
            in_p, in_t = p in foreground, t in foreground
            seen["fg_inter"][row] += in_p and in_t
            seen["fg_union"][row] += in_p or in_t
            seen["bg_inter"][row] += not in_p and not in_t
            seen["bg_union"][row] += not in_p or not in_t
            seen["fg_pred"][row] += in_p
            seen["fg_true"][row] += in_t
    return seen
