"""What comes back is what was saved, or an error that names the place."""

import dataclasses
import random
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgpt.errors import CheckpointError
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.params import flatten, unflatten
from jaxgpt.train.checkpoint import Checkpoints, require_same
from jaxgpt.train.manifest import DamagedCheckpoint, seal
from jaxgpt.train.step import init_state

CONFIG = DecoderConfig(vocab_size=16, train_length=8, num_layers=1, num_heads=2, width=16)
ADAM = optax.adamw(1e-3)
EXTRA = {"iterator": {"next_index": 7}, "identity": {"seed": 1}}


@pytest.fixture(scope="module")
def state():
    """A state whose optimizer is not all zeros."""
    made = jax.jit(lambda: init_state(CONFIG, ADAM, seed=0))()
    return jax.tree.map(lambda leaf: np.asarray(leaf) + np.asarray(leaf.size % 7, leaf.dtype), made)


@pytest.fixture(scope="module")
def saved(state, tmp_path_factory):
    """A folder with checkpoints of steps 3 and 5; of 5 all numbers are one larger."""
    directory = tmp_path_factory.mktemp("saved") / "checkpoints"
    checkpoints = Checkpoints(directory)
    checkpoints.save(state, 3, EXTRA)
    checkpoints.save(jax.tree.map(lambda leaf: leaf + 1, state), 5, EXTRA)
    checkpoints.close()
    return directory


@pytest.fixture
def copy(saved, tmp_path):
    """Of the folder, to damage."""
    return shutil.copytree(saved, tmp_path / "copy")


def abstract(state):
    return jax.eval_shape(lambda: state)


def restore(directory, state, step=None):
    checkpoints = Checkpoints(directory)
    try:
        return checkpoints.restore(abstract(state), step)
    finally:
        checkpoints.close()


def equal(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_names_are_readable_and_the_way_back_is_exact(state):
    flat = flatten(state)
    assert "step" in flat
    assert "model/blocks/mixer/query" in flat
    assert "model/embedding" in flat
    assert any(name.startswith("optimizer/") and name.endswith("/embedding") for name in flat)
    equal(unflatten(abstract(state), flat), state)


def test_what_comes_back_is_what_was_saved(saved, state):
    after, extra = restore(saved, state, 3)
    equal(after, state)
    assert extra == EXTRA
    newest, _ = restore(saved, state)
    equal(newest, jax.tree.map(lambda leaf: leaf + 1, state))


def test_a_part_comes_back_alone(saved, state):
    checkpoints = Checkpoints(saved)
    part = checkpoints.arrays("absent", "model", step=3)
    require_same(part, flatten(abstract(state.model)), "here")
    assert checkpoints.arrays("absent") == {}
    assert checkpoints.arrays().keys() == flatten(state).keys()
    for name, array in flatten(state.model).items():
        np.testing.assert_array_equal(part[name], array)
    checkpoints.close()


def test_types_beside_float32_come_back(tmp_path):
    mixed = {
        "half": jnp.arange(5, dtype=jnp.bfloat16),
        "count": jnp.int32(3),
        "flags": jnp.array([True, False]),
        "one": jnp.float32(2),
    }
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(mixed, 1, {})
    checkpoints.wait()
    equal(checkpoints.restore(abstract(mixed))[0], mixed)
    checkpoints.close()


def test_the_state_may_be_overwritten_while_it_is_written(tmp_path):
    array = np.zeros(1000, np.float32)
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save({"x": array}, 1, {})
    array[:] = 7
    checkpoints.close()
    np.testing.assert_array_equal(restore(tmp_path / "c", {"x": array})[0]["x"], np.zeros(1000))


def test_the_newest_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c", keep=2)
    assert checkpoints.latest() is None
    for step in (1, 2, 3):
        checkpoints.save({"x": jnp.float32(step)}, step, {})
    checkpoints.wait()
    assert checkpoints.latest() == 3
    checkpoints.close()
    assert sorted(path.name for path in (tmp_path / "c").iterdir() if path.name.isdigit()) == ["2", "3"]


def test_no_checkpoint_at_all(tmp_path, state):
    with pytest.raises(CheckpointError, match=r"c: holds no checkpoint; train first"):
        restore(tmp_path / "c", state)


def test_a_step_that_was_not_saved(saved, state):
    with pytest.raises(CheckpointError, match=r"holds no checkpoint of step 4"):
        restore(saved, state, 4)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(CheckpointError, match=r"file/c: cannot be written"):
        Checkpoints(tmp_path / "file" / "c")


# --------------------------------------------------------------------------------------------------------------- damage


def files(directory, step=5):
    """Of a checkpoint, but for Orbax's own notes beside the folders; the largest first."""
    folder = directory / str(step)
    found = [path for path in folder.rglob("*") if path.is_file() and path.parent != folder]
    return sorted(found, key=lambda path: (-path.stat().st_size, path))


def damage(path, how, at=0):
    content = bytearray(path.read_bytes())
    if how == "deleted" or not content:
        path.unlink()
    elif how == "cut short":
        path.write_bytes(content[: at % len(content)])
    else:
        content[at % len(content)] ^= 1 << at % 8
        path.write_bytes(content)


def test_a_hundred_random_damages_are_found_and_the_step_before_comes_back(saved, state, tmp_path, caplog):
    """In any file, the manifest and Orbax's notes too. Damage to notes may leave all numbers as they were."""
    draw = random.Random(0)
    silent = []
    for number in range(100):
        directory = shutil.copytree(saved, tmp_path / str(number))
        path = draw.choice([path for path in sorted((directory / "5").rglob("*")) if path.is_file()])
        how = draw.choice(["flipped", "cut short", "deleted"])
        damage(path, how, draw.randrange(10**6))
        caplog.clear()
        checkpoints = Checkpoints(directory)
        after, extra = checkpoints.restore_intact(abstract(state))
        checkpoints.close()
        assert extra == EXTRA
        warnings = [record.getMessage() for record in caplog.records if record.name == "jaxgpt.train.checkpoint"]
        if warnings:
            equal(after, state)
            assert warnings[0].startswith(f"{directory}/5")
            assert warnings[0].endswith("; going back to the checkpoint of step 3")
            assert (directory / "damaged-5").exists()
        else:
            silent.append(path)
            equal(after, jax.tree.map(lambda leaf: leaf + 1, state))
        shutil.rmtree(directory)
    assert len(silent) < 30
    assert all(path.parent.name == "5" for path in silent)  # Orbax's notes


@pytest.mark.parametrize(
    ("how", "message"),
    [("flipped", "is damaged"), ("cut short", "is damaged"), ("deleted", "is missing"), ("locked", "cannot be read")],
)
def test_damage_is_named(copy, state, how, message):
    path = files(copy)[0]
    if how == "locked":
        path.unlink()
        path.mkdir()
    else:
        damage(path, how)
    with pytest.raises(DamagedCheckpoint, match=rf"^{path}: {message}.*; train again, which goes on from the newest"):
        restore(copy, state)
    equal(restore(copy, state, 3)[0], state)


def test_what_orbax_cannot_read_is_one_error_without_tracebacks_and_no_damage(copy):
    """In a process of its own, for pytest catches what threads print. The files are those that were sealed."""
    for path in files(copy):
        if path.parent.name == "d":
            damage(path, "cut short", 100)
    seal(copy / "5")
    code = (
        "import sys, pathlib; from jaxgpt.train.checkpoint import Checkpoints\n"
        "checkpoints = Checkpoints(pathlib.Path(sys.argv[1]), writes=False)\n"
        "try: checkpoints.arrays('model')\n"
        "except ValueError as error: print(type(error).__name__, error)\n"
        "checkpoints.close()"
    )
    done = subprocess.run([sys.executable, "-c", code, str(copy)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"CheckpointError {copy}/5: cannot be read (")
    assert done.stdout.endswith("); its files are as written\n")
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


@pytest.mark.parametrize("where", ["reading", "verifying"])
def test_a_machine_that_cannot_read_costs_no_checkpoint(copy, state, monkeypatch, where):
    def failing(*_, **__):
        raise MemoryError if where == "reading" else OSError(24, "Too many open files", "file")

    checkpoints = Checkpoints(copy)
    if where == "reading":
        monkeypatch.setattr(checkpoints._manager, "restore", failing)
    else:
        monkeypatch.setattr("hashlib.file_digest", failing)
    with pytest.raises(CheckpointError, match=r"cannot be read \((MemoryError|Too many open files)\)") as caught:
        checkpoints.restore_intact(abstract(state))
    assert not isinstance(caught.value, DamagedCheckpoint)
    assert checkpoints.latest() == 5
    checkpoints.close()


def test_where_nothing_is_intact_nothing_is_moved(copy, state):
    for step in (3, 5):
        damage(files(copy, step)[0], "flipped")
    checkpoints = Checkpoints(copy)
    with pytest.raises(CheckpointError, match=r"/5/.*, and no other checkpoint is intact; remove .*/copy to"):
        checkpoints.restore_intact(abstract(state))
    assert checkpoints.latest() == 5
    checkpoints.close()


def test_a_step_that_was_moved_aside_is_saved_again(copy, state):
    for attempt in (1, 2):
        damage(files(copy)[0], "deleted")
        checkpoints = Checkpoints(copy)
        checkpoints.restore_intact(abstract(state))
        checkpoints.save(state, 5, {"attempt": attempt})
        checkpoints.wait()
        assert checkpoints.restore(abstract(state))[1] == {"attempt": attempt}
        checkpoints.close()


def test_what_a_killed_save_leaves_is_no_checkpoint_and_is_removed_by_the_next_writer(copy, state):
    left = (copy / "5").rename(copy / "7.orbax-checkpoint-tmp")
    for writes in (False, True):
        checkpoints = Checkpoints(copy, writes=writes)
        assert checkpoints.restore(abstract(state))[0].step == state.step
        checkpoints.close()
        assert left.exists() != writes


def test_a_reader_needs_no_folder_and_makes_none(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "none", writes=False)
    with pytest.raises(CheckpointError, match="none: holds no checkpoint; train first"):
        checkpoints.restore(abstract(state))
    assert not (tmp_path / "none").exists()


def test_a_step_that_its_writer_removes_while_it_is_read(copy, state):
    checkpoints = Checkpoints(copy, writes=False)
    shutil.rmtree(copy / "5")
    with pytest.raises(CheckpointError, match="/5: was removed by its writer meanwhile; read again"):
        checkpoints.restore(abstract(state))


def test_a_save_that_fails_leaves_the_earlier_ones(copy, state, monkeypatch):
    checkpoints = Checkpoints(copy)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints._manager, "save", full)
        with pytest.raises(
            CheckpointError, match=r"/9: saving the checkpoint failed \(No space left on device\); earlier"
        ):
            checkpoints.save(state, 9, EXTRA)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints._manager, "wait_until_finished", full)
        with pytest.raises(
            CheckpointError, match=r"copy: saving the checkpoint failed \(No space left on device\); earlier"
        ):
            checkpoints.wait()
    assert checkpoints.latest() == 5
    equal(checkpoints.restore(abstract(state), 3)[0], state)
    checkpoints.close()


# -------------------------------------------------------------------------------------------------------- another model


def test_another_models_checkpoint_is_refused(saved, state):
    def init(**changes):
        config = dataclasses.replace(CONFIG, **changes)
        return jax.eval_shape(lambda: init_state(config, ADAM, seed=0))

    for changes, message in (
        ({"width": 32}, r"checkpoints: model/\S+/down is float32\(1, 64, 16\), the model has float32\(1, 128, 32\)"),
        ({"bias": True}, r"belongs to another model; missing here: .*bias.*; not in the model: nothing"),
    ):
        checkpoints = Checkpoints(saved)
        with pytest.raises(CheckpointError, match=message):
            checkpoints.restore(init(**changes))
        with pytest.raises(CheckpointError):
            require_same(checkpoints.arrays("model"), flatten(init(**changes).model), "here")
        checkpoints.close()


def test_another_type_is_refused(saved, state):
    checkpoints = Checkpoints(saved)
    half = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), abstract(state.model))
    with pytest.raises(CheckpointError, match=r"is float32.*, the model has bfloat16"):
        require_same(checkpoints.arrays("model"), flatten(half), "here")
    checkpoints.close()
