"""A trained run on tasks of the harness, without a network: local tasks on local files."""

import json

import jax
import numpy as np
import pytest

from jaxgpt.errors import ConfigError
from jaxgpt.generate.text import Source
from jaxgpt.harness.__main__ import main
from jaxgpt.models.decoder import DecoderConfig

pytestmark = pytest.mark.torch  # the extra harness
HEAD = """
task: NAME
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
"""
TASKS = {
    "colours": """
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list: [{metric: acc}]
""",
    "whole": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list: [{metric: byte_perplexity}]
""",
    "writing": """
output_type: generate_until
generation_kwargs: {until: [" five"], max_gen_toks: 20, do_sample: false}
doc_to_text: "one two"
doc_to_target: " three four"
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
""",
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder with three tasks on one file."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [
        {"question": "one two", "choices": [" three", " zebra"], "answer": 0},
        {"question": "three four. one", "choices": [" nine", " two"], "answer": 1},
    ]
    (folder / "rows.json").write_text("\n".join(map(json.dumps, rows)))
    for name, text in TASKS.items():
        head = HEAD.replace("NAME", name).replace("FILE", str(folder / "rows.json"))
        (folder / f"{name}.yaml").write_text(head + text)
    return folder


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path_factory):
    home = tmp_path_factory.getbasetemp() / "hf"
    for name, value in (("HF_HOME", str(home)), ("HF_DATASETS_OFFLINE", "1"), ("HF_HUB_OFFLINE", "1")):
        monkeypatch.setenv(name, value)


def test_a_run_is_scored(sentence_run, tasks, tmp_path, capsys):
    out = tmp_path / "scores.json"
    options = ["--tasks-dir", str(tasks), "--output", str(out), "--batch-size", "3"]
    assert main([str(sentence_run), "--tasks", "colours", "whole", "writing", *options]) == 0
    printed = capsys.readouterr().out
    assert "colours" in printed
    results = json.loads(out.read_text())["results"]
    assert results["colours"]["acc,none"] == 1.0
    assert results["writing"]["exact_match,none"] == 1.0
    assert 1.0 < results["whole"]["byte_perplexity,none"] < 5.0, "one of the two texts was never seen"


def test_a_whole_text_is_scored_once_each_token():
    from lm_eval.api.instance import Instance

    from jaxgpt.data.tokenizers.byte import ByteTokenizer
    from jaxgpt.harness.adapter import HarnessModel

    tokenizer = ByteTokenizer(())
    config = DecoderConfig(vocab_size=257, train_length=8, num_layers=1, num_heads=2, width=16, init_std=0.5)
    model = jax.jit(config.make)(jax.random.key(0))
    text = "a text of more than eight tokens"
    request = Instance("loglikelihood_rolling", {}, (text,), 0)
    adapter = HarnessModel(Source(model, tokenizer, (0,), (0,)), max_length=8, batch_size=2)
    (found,) = adapter.loglikelihood_rolling([request], disable_tqdm=True)
    tokens = [0, *tokenizer.encode(text).tolist()]
    total = 0.0
    for first in range(0, len(tokens) - 1, 8):  # the last window begins earlier, with a full context
        last = min(first + 8, len(tokens) - 1)
        begin = max(0, last - 8)
        log_p = np.asarray(jax.nn.log_softmax(model(np.array([tokens[begin:last]])).logits[0]))
        total += sum(log_p[at - begin, tokens[at + 1]] for at in range(first, last))
    assert found == pytest.approx(total, rel=1e-5)


def test_mistakes_are_named(sentence_run, llama_checkpoint, tasks, capsys):
    assert main([str(llama_checkpoint), "--tasks", "colours", "--tasks-dir", str(tasks)]) == ConfigError.exit_code
    assert "has no tokenizer for texts, and tasks are texts" in capsys.readouterr().err
    assert main([str(sentence_run), "--tasks", "colurs", "--tasks-dir", str(tasks)]) == ConfigError.exit_code
    assert "--tasks: none is called 'colurs'; did you mean 'colours'" in capsys.readouterr().err
    long = ["--tasks", "writing", "--tasks-dir", str(tasks), "--max-length", "20"]
    assert main([str(sentence_run), *long]) == ConfigError.exit_code
    assert "leaves no room for a prompt" in capsys.readouterr().err
