import pytest

from jaxgpt.errors import (
    CheckpointError,
    ConfigError,
    ContextTooLong,
    DataError,
    Interrupted,
    TrainingError,
    UserError,
    nearest,
)


@pytest.mark.parametrize(
    ("name", "existing", "wanted"),
    [
        ("rop", ["rope", "alibi"], "; did you mean 'rope'? (there are: alibi, rope)"),
        ("zzz", ["rope", "alibi"], "; (there are: alibi, rope)"),
        ("", ["rope"], "; (there are: rope)"),
        ("x", [], "; (there are: none)"),
        ("1", [2, 1], "; did you mean '1'? (there are: 1, 2)"),
        (
            "learning_rat",
            {"learning_rate": 1, "steps": 2},
            "; did you mean 'learning_rate'? (there are: learning_rate, steps)",
        ),
    ],
)
def test_nearest_lists_what_exists_and_the_likeliest(name, existing, wanted):
    assert nearest(name, existing) == wanted


def test_exit_codes():
    codes = {
        kind: kind("x").exit_code for kind in (ConfigError, DataError, CheckpointError, TrainingError, Interrupted)
    }
    assert codes == {ConfigError: 2, DataError: 1, CheckpointError: 1, TrainingError: 1, Interrupted: 130}


@pytest.mark.parametrize("kind", [ConfigError, ContextTooLong, DataError, CheckpointError, TrainingError, Interrupted])
def test_every_error_is_a_user_error_whose_text_is_its_message(kind):
    assert issubclass(kind, UserError)
    assert issubclass(kind, ValueError)
    assert str(kind("what happened")) == "what happened"
