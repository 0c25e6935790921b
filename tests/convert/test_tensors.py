import json

import ml_dtypes
import numpy as np
import pytest

from jaxgpt.convert.settings import ConversionError
from jaxgpt.convert.tensors import INDEX, SINGLE, Tensors, write_tensors

ARRAYS = {
    "a": np.arange(12, dtype=np.float32).reshape(3, 4),
    "b": np.arange(3).astype(ml_dtypes.bfloat16),
    "c": np.float16(2.5).reshape(()),
    "d": np.zeros((0, 4), np.float32),
    "e": np.arange(5, dtype=np.int64),
}


def write(folder, arrays=ARRAYS, shard_bytes=10**9):
    asked = []

    def read(name):
        asked.append(name)
        return arrays[name]

    write_tensors(folder, {name: (array.shape, array.dtype) for name, array in arrays.items()}, read, shard_bytes)
    assert asked == list(arrays), "each once"


@pytest.mark.parametrize("shard_bytes", [10**9, 50, 1])
def test_what_is_written_is_read(tmp_path, shard_bytes):
    write(tmp_path, shard_bytes=shard_bytes)
    assert (tmp_path / INDEX).exists() == (shard_bytes < 10**9)
    with Tensors(tmp_path) as tensors:
        assert set(tensors) == set(ARRAYS)
        for name, array in ARRAYS.items():
            assert (tensors.shape(name), tensors.dtype(name)) == (array.shape, array.dtype)
            np.testing.assert_array_equal(tensors[name], array)
            tensors.forget(name)
            np.testing.assert_array_equal(tensors[name], array)
    assert not list(tmp_path.glob(".*")), "nothing half written"


@pytest.mark.torch  # of the extra hf, which also has this library
def test_the_library_of_the_format_reads_it(tmp_path):
    from safetensors import numpy

    arrays = {name: array for name, array in ARRAYS.items() if name != "b"}  # it has no bfloat16 for numpy
    write(tmp_path, arrays)
    found = numpy.load_file(tmp_path / SINGLE)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


def test_folders_without_tensors(tmp_path):
    with pytest.raises(ConversionError, match=r"holds neither model.safetensors nor"):
        Tensors(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(ConversionError, match=r"pytorch_model.bin is pickled, which can run code"):
        Tensors(tmp_path)
    (tmp_path / INDEX).write_text("[]")
    with pytest.raises(ConversionError, match="is not an index"):
        Tensors(tmp_path)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))
    with pytest.raises(ConversionError, match=r"gone.safetensors: cannot be read"):
        Tensors(tmp_path)


@pytest.mark.parametrize("sizes", [(10**9, 50), (50, 10**9), (50, 20)])
def test_a_checkpoint_takes_the_place_of_another(tmp_path, sizes):
    write(tmp_path, shard_bytes=sizes[0])
    write(tmp_path, {"a": 7 + ARRAYS["a"], "z": ARRAYS["e"]}, shard_bytes=sizes[1])
    with Tensors(tmp_path) as tensors:
        assert set(tensors) == {"a", "z"}
        np.testing.assert_array_equal(tensors["a"], 7 + ARRAYS["a"])


@pytest.mark.parametrize("damage", ["cut", "header", "empty", "type"])
def test_damaged_files_are_refused(tmp_path, damage):
    write(tmp_path)
    path = tmp_path / SINGLE
    data = path.read_bytes()
    changed = {
        "cut": data[:-10],
        "header": data[:20] + b"\xff\xff" + data[22:],
        "empty": b"",
        "type": data.replace(b'"F32"', b'"F99"'),
    }
    path.write_bytes(changed[damage])
    with pytest.raises(
        ConversionError, match=r"model.safetensors: (is cut short|is not a|cannot be read|a is F99, quantised)"
    ):
        Tensors(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    with pytest.raises(ConversionError, match="cannot be written"):
        write(tmp_path / "missing")
