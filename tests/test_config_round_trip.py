"""Whatever configuration can be drawn survives being written and read, and hashes tell configurations apart."""

from __future__ import annotations

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgpt.config import FrozenMapping, content_hash, decode, encode, write_yaml
from jaxgpt.models.base import ModelConfig
from jaxgpt.models.decoder import DecoderConfig
from jaxgpt.nn.position.alibi import AlibiConfig
from jaxgpt.nn.position.base import NopeConfig
from jaxgpt.nn.position.rope_scaling import LinearConfig
from jaxgpt.nn.position.rotary import RopeConfig
from jaxgpt.train.optimizer.adamw import AdamWConfig
from jaxgpt.train.run import TrainConfig
from jaxgpt.train.schedule import ConstantConfig, CosineConfig, WSDConfig
from jaxgpt.train.tracker.tensorboard import TensorBoardConfig
from jaxgpt.train.tracker.trackio import TrackioConfig
from jaxgpt.train.tracker.wandb import WandbConfig

positive = st.floats(1e-6, 1e6)
scalings = st.none() | st.builds(LinearConfig, factor=st.floats(1, 100), original_length=st.none() | st.integers(1, 99))
positions = (
    st.just(AlibiConfig())
    | st.just(NopeConfig())
    | st.builds(
        RopeConfig, theta=st.floats(1.5, 1e9), layout=st.sampled_from(["half_split", "interleaved"]), scaling=scalings
    )
)
schedules = (
    st.builds(ConstantConfig, warmup=st.floats(0, 1))
    | st.builds(CosineConfig, warmup=st.floats(0, 1), final=st.floats(0, 1))
    | st.builds(WSDConfig, decay=st.floats(0, 1))
)
trains = st.builds(
    TrainConfig,
    steps=st.integers(1, 10**9),
    learning_rate=positive,
    gradient_clip=st.none() | positive,
    schedule=schedules,
    optimizer=st.builds(AdamWConfig, beta1=st.floats(0, 0.99), weight_decay=st.floats(0, 1)),
    tensorboard=st.booleans(),
    trackers=st.lists(st.sampled_from([TensorBoardConfig(), WandbConfig(entity="us"), TrackioConfig()])).map(tuple),
    profile_steps=st.none() | st.just((1, 1)),
)
models = st.builds(
    DecoderConfig,
    width=st.just(32),
    num_layers=st.sampled_from([2, 4]),
    pattern=st.just(("local", "global")),
    position=positions | st.builds(lambda a, b: FrozenMapping({"local": a, "global": b}), positions, positions),
    window=st.none() | st.integers(1, 9) | st.just(FrozenMapping({"local": 4, "global": None})),
)


@settings(max_examples=30, deadline=None)
@given(models, trains)
def test_what_is_encoded_decodes_to_its_equal(model, train):
    for base, config in ((ModelConfig, model), (TrainConfig, train)):
        again = decode(base, yaml.safe_load(write_yaml(encode(config))))
        assert again == config
        assert hash(again) == hash(config)
        assert content_hash(again) == content_hash(config)


@settings(max_examples=20, deadline=None)
@given(positions, positions)
def test_hashes_are_equal_exactly_where_configs_are(one, other):
    assert (content_hash(one) == content_hash(other)) == (one == other)
