import pytest

from harness.method import find_variant


def _network(name):
    variant = find_variant(name)
    return variant.build(num_joints=17, input_size=variant.input_size)


@pytest.mark.parametrize("name, stages", [("fasterpose_tiny", 3), ("srpose_tiny", 3)])
def test_the_tiny_simplebaseline_starts_stem_and_stages_of_the_other_convolutional_ones(name, stages):
    given, own = _network("simplebaseline_tiny").state_dict(), _network(name).state_dict()
    layout = next(layout for layout in find_variant(name).layouts if layout.matches(given))
    assert (layout.name, layout.partial) == ("simplebaseline", True)
    kept = {key: value for key, value in given.items() if not key.startswith(layout.ignores)}
    started = layout.to_own(kept)
    assert {key: value.shape for key, value in started.items()} == {key: own[key].shape for key in started}
    parts = {"conv1", "bn1"} | {f"layer{i + 1}" for i in range(stages)}
    assert {key.split(".")[1] for key in started} == parts


def test_a_simplebaseline_is_never_taken_for_a_classifier():
    given = _network("simplebaseline_r18").state_dict()
    matching = [layout.name for layout in find_variant("fasterpose_r18").layouts if layout.matches(given)]
    assert matching == ["simplebaseline"]
