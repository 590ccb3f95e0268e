"""The order of samples, and how a step is divided among processes and pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.train.stream import Order, Share, generator, torch_seed


def test_every_epoch_is_another_permutation_of_all_samples():
    batches = list(Order(10, 4, 2, seed=1))
    assert [len(b) for b in batches] == [4, 4, 2, 4, 4, 2]
    epochs = [[i for b in batches[k : k + 3] for _, i in b] for k in (0, 3)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10))
    assert epochs[0] != epochs[1]
    assert [epoch for b in batches for epoch, _ in b] == [0] * 10 + [1] * 10


def test_an_order_that_starts_within_an_epoch_gives_the_rest_of_the_same_batches():
    assert list(Order(10, 4, 3, seed=1, start=4)) == list(Order(10, 4, 3, seed=1))[4:]
    assert len(Order(10, 4, 3, seed=1, start=4)) == 5


def test_a_run_of_so_many_steps_ends_within_an_epoch():
    batches = list(Order(10, 4, 99, seed=1, steps=4))
    assert batches == list(Order(10, 4, 2, seed=1))[:4] and len(Order(10, 4, 99, steps=4)) == 4


@given(samples=st.integers(1, 40), processes=st.integers(1, 5), pieces=st.integers(1, 4))
def test_the_pieces_of_all_processes_are_the_samples_of_the_step_with_even_weight(samples, processes, pieces):
    places = [(0, i) for i in range(samples)]
    split = [Share(p, processes, pieces).split(places) for p in range(processes)]
    assert len({len(own) for own in split}) == 1  # all exchange gradients equally often
    seen = sorted(place for own in split for piece in own for place in piece.places if piece.weight)
    assert seen == places
    for own in split:
        for piece in own:
            # the mean over processes of (mean over a piece x weight) counts every sample 1 / samples
            assert piece.weight in (0, pytest.approx(processes * len(piece.places) / samples))
    for together in zip(*split):
        assert sum(piece.part for piece in together if piece.weight) == pytest.approx(1)


def test_one_process_and_one_piece_keep_the_batch_as_it_is():
    places = [(3, 5), (3, 1)]
    assert Share().split(places) == [(places, 1.0, 1.0)]


def test_random_layers_of_two_processes_draw_differently_and_the_first_as_one_alone():
    assert torch_seed(1, 2) == torch_seed(1, 2, 0) != torch_seed(1, 2, 1)
    assert generator(1, 0, 2, 3).random() == generator(1, 0, 2, 3).random() != generator(1, 1, 2, 3).random()
