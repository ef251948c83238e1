import hashlib
from collections import Counter

import pytest

from fewseg.data.draws import Draws


def reference_stream(n, *key):
    """The definition, written out: typed parts with their lengths, then blake2b of a counter."""
    raw = b""
    for part in key:
        text = {str: "s{}", int: "i{}"}[type(part)].format(part).encode()
        raw += len(text).to_bytes(4, "little") + text
    seed = hashlib.blake2b(raw, digest_size=32).digest()
    out = []
    for counter in range(n // 8 + 1):
        block = hashlib.blake2b(counter.to_bytes(8, "little"), key=seed, digest_size=64).digest()
        out += [int.from_bytes(block[i : i + 8], "little") for i in range(0, 64, 8)]
    return out[:n]


def test_the_stream_is_blake2b_of_the_key_and_a_counter():
    draws = Draws("episode", 3, -1)
    assert [draws.integer() for _ in range(20)] == reference_stream(20, "episode", 3, -1)


def test_the_stream_never_changes():
    draws = Draws("fewseg", 0)
    assert [draws.below(1000) for _ in range(6)] == [185, 287, 339, 434, 633, 662]
    assert Draws("fewseg", 0.5).integer() == 4040296101670935438


@pytest.mark.parametrize(
    ("a", "b"), [(("a", "bc"), ("ab", "c")), ((1,), ("1",)), ((1,), (1.0,)), ((1, 2), (12,)), ((0,), (1,))]
)
def test_different_keys_give_different_streams(a, b):
    assert Draws(*a).integer() != Draws(*b).integer()


def test_a_spawned_stream_is_its_own_and_takes_nothing_from_the_parent():
    parent = Draws("p")
    child = parent.spawn("c", 1)
    assert parent.integer() == Draws("p").integer()
    assert child.integer() == Draws("p").spawn("c", 1).integer()
    assert len({child.integer(), parent.integer(), Draws("p").spawn("c", 2).integer()}) == 3


def test_below_rejects_the_values_that_would_bias_it():
    n = 2**63 + 1  # nearly half of all 64-bit integers are at or above the limit, n itself
    stream = reference_stream(64, "bias")
    draws = Draws("bias")
    kept = [v for v in stream if v < n]
    assert len(kept) < 50
    assert [draws.below(n) for _ in kept] == kept


def test_below_takes_the_remainder_and_covers_the_range():
    draws, stream = Draws("k"), reference_stream(50, "k")
    assert [draws.below(7) for _ in range(50)] == [v % 7 for v in stream]
    counts = Counter(Draws("n", i).below(5) for i in range(2000))
    assert sorted(counts) == [0, 1, 2, 3, 4]
    assert all(330 < n < 470 for n in counts.values())


def test_uniform_is_the_top_53_bits():
    draws, stream = Draws("u"), reference_stream(40, "u")
    assert [draws.uniform() for _ in range(20)] == [(v >> 11) / 2**53 for v in stream[:20]]
    values = [draws.uniform(-2.0, 6.0) for _ in range(20)]
    assert values == [-2.0 + 8.0 * ((v >> 11) / 2**53) for v in stream[20:]]


def test_chance_is_never_at_zero_and_always_at_one_and_in_between_it_follows():
    assert not any(Draws(i).chance(0.0) for i in range(50))
    assert all(Draws(i).chance(1.0) for i in range(50))
    assert 540 < sum(Draws("c", i).chance(0.3) for i in range(2000)) < 660


def test_sample_has_no_repeats_and_a_smaller_one_is_a_prefix():
    items = list("abcdefghij")
    for seed in range(30):
        whole = Draws(seed).sample(items, 10)
        assert sorted(whole) == items
        assert all(Draws(seed).sample(items, k) == whole[:k] for k in range(11))


def test_choice_follows_the_stream():
    assert Draws("c").choice("abcde") == "abcde"[Draws("c").below(5)]
    assert 0 <= Draws("x").below(2**64) < 2**64


@pytest.mark.parametrize(
    ("draw", "error"),
    [
        *((lambda n=n: Draws("x").below(n), "1 <= n") for n in (0, -1, 2**64 + 1)),
        *((lambda k=k: Draws("x").sample("abc", k), "of 3 items") for k in (-1, 4)),
        (lambda: Draws("x").choice([]), "one item"),
        (lambda: Draws([1]), "list"),
    ],
)
def test_impossible_draws_are_refused(draw, error):
    with pytest.raises((ValueError, TypeError), match=error):
        draw()
