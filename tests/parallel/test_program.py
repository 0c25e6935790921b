"""What a compiled program's text says: loops, collectives and memory, on texts in the forms that XLA's compilers write,
and on programs compiled here."""

import textwrap

import jax
import jax.numpy as jnp
import pytest

from jaxgpt.parallel.program import group_size, parse, traffic

LOOP = """
HloModule jit_step

%fused (param_0: f32[12,8,16], param_1: s32[]) -> f32[8,16] {
  %param_0 = f32[12,8,16]{2,1,0} parameter(0)
  %param_1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %slice = f32[1,8,16]{2,1,0} dynamic-slice(%param_0, %param_1, %zero, %zero), dynamic_slice_sizes={1,8,16}
  ROOT %flat = f32[8,16]{1,0} bitcast(%slice)
}

%body (carried: (s32[], f32[12,8,16], f32[32,16])) -> (s32[], f32[12,8,16], f32[32,16]) {
  %carried = (s32[], f32[12,8,16]{2,1,0}, f32[32,16]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%carried), index=0
  %layers = f32[12,8,16]{2,1,0} get-tuple-element(%carried), index=1
  %one = s32[] constant(STEP)
  %next = s32[] add(%i, %one)
  %mine = f32[8,16]{1,0} fusion(%layers, %i), kind=kLoop, calls=%fused
  %whole = f32[32,16]{1,0} all-gather(%mine), channel_id=1, replica_groups=[2,4]<=[8], dimensions={0}
  ROOT %out = (s32[], f32[12,8,16]{2,1,0}, f32[32,16]{1,0}) tuple(%next, %layers, %whole)
}

%condition (carried.1: (s32[], f32[12,8,16], f32[32,16])) -> pred[] {
  %carried.1 = (s32[], f32[12,8,16]{2,1,0}, f32[32,16]{1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%carried.1), index=0
  %limit = s32[] constant(12)
  ROOT %less = pred[] compare(%i.1, %limit), direction=LT
}

ENTRY %main (start: (s32[], f32[12,8,16], f32[32,16])) -> (s32[], f32[12,8,16], f32[32,16]) {
  %start = (s32[], f32[12,8,16]{2,1,0}, /*index=2*/f32[32,16]{1,0}) parameter(0)
  ROOT %loop = (s32[], f32[12,8,16]{2,1,0}, f32[32,16]{1,0}) while(%start), condition=%condition, body=%body
}
"""

GATHER = 32 * 16 * 4 * 3 / 4  # of four devices, three send what the fourth has not


def entry(*lines):
    body = "\n".join(f"  {line}" for line in lines)
    return f"HloModule m\n\nENTRY %main (p: f32[8,4]) -> f32[8,4] {{\n{body}\n}}\n"


@pytest.mark.parametrize(("step", "turns"), [(1, 12), (2, 6), (5, 3)])
def test_a_loop_counts_as_often_as_its_counter_passes_its_condition(step, turns):
    found = traffic(LOOP.replace("STEP", str(step)))
    assert found.sent == {"all-gather": turns * GATHER}


def test_what_xla_notes_of_a_loop_goes_first():
    text = LOOP.replace("STEP", "1").replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"7"}}')
    assert traffic(text).sent == {"all-gather": 7 * GATHER}


def test_of_stacked_layers_a_turn_reads_its_own():
    layer = 8 * 16 * 4
    adding = 3 * 4  # the counter
    gathering = layer + 4 * layer
    assert traffic(LOOP.replace("STEP", "1")).memory == 12 * (layer + 4 + layer + adding + gathering)


@pytest.mark.parametrize(
    ("line", "sent"),
    [
        ("f32[8,4]{1,0} all-reduce(%p), channel_id=1, replica_groups={{0,1,2,3}}, to_apply=%add", 2 * 128 * 3 / 4),
        ("f32[2,4]{1,0} reduce-scatter(%p), channel_id=1, replica_groups=[1,4]<=[4], dimensions={0}", 128 * 3 / 4),
        ("f32[8,4]{1,0} all-to-all(%p), channel_id=1, replica_groups=[2,2]<=[4], dimensions={0}", 128 / 2),
        ("f32[8,4]{1,0} collective-permute(%p), channel_id=1, source_target_pairs={{0,1},{1,0}}", 128),
        ("(f32[2,4]{1,0}, f32[8,4]{1,0}) all-gather-start(%p), channel_id=1, replica_groups=[1,4]<=[4]", 128 * 3 / 4),
        ("(bf16[8,4]{1,0}, bf16[8,4]{1,0}, u32[]{:S(2)}) collective-permute-start(%p), channel_id=1", 64),
        ("(f32[8]{0}, bf16[8]{0}) all-reduce(%p, %p), channel_id=1, replica_groups=[1,2]<=[2]", 2 * 48 / 2),
    ],
)
def test_bytes_sent_by_each_kind_of_collective(line, sent):
    text = entry("%p = f32[8,4]{1,0} parameter(0)", f"ROOT %r = {line}")
    assert sum(traffic(text).sent.values()) == sent


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("replica_groups={{0,1,2},{3,4,5}}", 3),
        ("replica_groups=[2,4]<=[8]", 4),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", 2),
        ("replica_groups=mesh['axis_0'=16,'axis_1'=2] {'axis_0'}", 16),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0','axis_1'}", 8),
        ("replica_groups=mesh['axis_0'=1,'axis_1'=4,'axis_2'=2], device_ids=([2,4]T(1,0)) {'axis_1'}", 4),
        ("dimensions={0}", 1),
    ],
)
def test_who_takes_part(groups, size):
    assert group_size(groups) == size


def test_a_collective_in_flight_counts_once_however_often_it_is_named():
    start = "%s = (f32[2,4]{1,0}, f32[8,4]{1,0}) all-gather-start(%p), channel_id=3, replica_groups=[1,4]<=[4]"
    again = "%g = f32[8,4]{1,0} all-gather(%p), channel_id=3, replica_groups=[1,4]<=[4]"
    assert traffic(entry("%p = f32[2,4]{1,0} parameter(0)", start, again)).sent == {"all-gather": 96.0}


def test_a_sum_of_which_a_fusion_keeps_a_part_is_scattered():
    """As TPUs write it."""
    text = """
HloModule m

%all-reduce-scatter (input: f32[8,4], place: u32[]) -> f32[2,4] {
  %input = f32[8,4]{1,0} parameter(0)
  %place = u32[] parameter(1)
  %sum = f32[8,4]{1,0} all-reduce(%input), channel_id=1, replica_groups=[1,4]<=[4], to_apply=%add
  %zero = u32[] constant(0)
  ROOT %mine = f32[2,4]{1,0} dynamic-slice(%sum, %place, %zero), dynamic_slice_sizes={2,4}
}

ENTRY %main (p: f32[8,4], i: u32[]) -> f32[2,4] {
  %p = f32[8,4]{1,0} parameter(0)
  %i = u32[] parameter(1)
  ROOT %part = f32[2,4]{1,0} fusion(%p, %i), kind=kCustom, calls=%all-reduce-scatter
}
"""
    assert traffic(text).sent == {"reduce-scatter": 128 * 3 / 4}


def test_attributes_over_several_lines_end_no_computation():
    text = textwrap.dedent("""
        HloModule m

        ENTRY %main (p: f32[8,4]) -> f32[8,4] {
          %p = f32[8,4]{1,0} parameter(0)
          %kernel = f32[8,4]{1,0} custom-call(%p), custom_call_target="k", backend_config={"metadata":{
         "block": "{\\"q\\": 512}"
        }}, metadata={op_name="x"}
          ROOT %sum = f32[8,4]{1,0} all-reduce(%kernel), channel_id=1, replica_groups=[1,2]<=[2], to_apply=%add
        }
    """)
    computations, name = parse(text)
    assert list(computations[name]) == ["p", "kernel", "sum"]
    assert traffic(text).sent == {"all-reduce": 128.0}


def test_what_a_compiler_keeps_in_fast_memory_is_no_traffic_with_the_main_one():
    far = entry("%p = f32[8,4]{1,0} parameter(0)", "ROOT %r = f32[8,4]{1,0} negate(%p)")
    near = entry("%p = f32[8,4]{1,0} parameter(0)", "ROOT %r = f32[8,4]{1,0:T(8,128)S(1)} negate(%p)")
    assert (traffic(far).memory, traffic(near).memory) == (256.0, 128.0)


def test_a_program_compiled_here_is_read():
    """A scan that is not unrolled: its products are read and written in every turn."""

    def step(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    x, weights = jnp.zeros((64, 64)), jnp.zeros((10, 64, 64))
    found = traffic(jax.jit(step).lower(x, weights).compile().as_text())
    product = 64 * 64 * 4
    assert not found.sent
    assert 10 * 3 * product <= found.memory <= 10 * 12 * product
