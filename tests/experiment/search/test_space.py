"""What an experiment file may say of a search, and what it may not."""

import pytest

from jaxgpt.errors import ConfigError
from jaxgpt.experiment.search import Choice, Float, Int, Median, Search

SPACE = {"train.learning_rate": Float(1e-4, 1e-2, log=True)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Float(1, 1), "low must be below high, got 1 and 1"),
        (lambda: Float(0, 1, log=True), "with log both ends must be positive, got 0"),
        (lambda: Float(0, float("inf")), "expected finite numbers, got inf"),
        (lambda: Float("a", 1), "expected finite numbers, got 'a'"),
        (lambda: Int(1, 2.5), "expected whole numbers, got 2.5"),
        (lambda: Int(True, 2), "expected whole numbers, got True"),
        (lambda: Int(3, 2), "low must be below high"),
        (lambda: Int(1, 4, step=2), "step 2: must lead from 1 to 4"),
        (lambda: Int(1, 5, step=2, log=True), "and be 1 with log"),
        (lambda: Choice(("a",)), "two or more values"),
        (lambda: Choice(("a", "a")), "the same value twice"),
        (lambda: Choice(((0.9, 0.95), (0.9, 0.99))), "expected texts, numbers, flags or None, got"),
        (lambda: Median(startup=0), "startup must be at least 1"),
        (lambda: Median(warmup=1.0), "are shares below 1"),
        (lambda: Search({}), "space must be a mapping .* not empty"),
        (lambda: Search({"train.learning_rate": (1, 2)}), "train.learning_rate: expected Float, Int or Choice"),
        (lambda: Search({"data.sequence_length": Int(8, 16)}), "only settings of model and train can be searched"),
        (lambda: Search({"train": Choice(("a", "b"))}), "train: only settings of"),
        (lambda: Search({"train.steps": Int(1, 9)}), "train.steps: is the trials' own"),
        (lambda: Search(SPACE, trials=0), "trials at least 1"),
        (lambda: Search(SPACE, steps=2.0), "steps and fraction are shares"),
        (lambda: Search(SPACE, sampler="tpa"), "sampler: 'tpa' is not possible; did you mean 'tpe'?"),
        (lambda: Search(SPACE, pruner="median"), "pruner: expected Median"),
        (lambda: Search(SPACE, seed=-1), "seed: expected 0 or more"),
    ],
)
def test_searches_that_cannot_be(make, message):
    with pytest.raises(ConfigError, match=f"search: .*{message}"):
        make()


def test_a_study_is_the_same_whatever_the_number_of_trials_and_variants():
    one = Search(SPACE)
    assert one.identity() == Search(SPACE, trials=90, variants=("rope",)).identity()
    others = [
        Search({"train.learning_rate": Float(1e-4, 1e-2)}),
        Search(SPACE, sampler="random"),
        Search(SPACE, pruner=None),
        Search(SPACE, seed=1),
    ]
    assert all(one.identity() != other.identity() for other in others)


def test_ends_of_ranges():
    assert Float(1e-4, 1e-2, log=True).at_end(1.05e-4)
    assert not Float(1e-4, 1e-2, log=True).at_end(2e-4)
    assert Float(1e-4, 1e-2).at_end(2e-4)
    assert [Int(2, 8, step=2).at_end(value) for value in (2, 4, 8)] == [True, False, True]
    assert Choice((None, "a")).ends() == (None, "a")
