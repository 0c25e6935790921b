"""What a compiled program does, read from its text: bytes between devices by kind, bytes to and from memory.

XLA's own `cost_analysis` counts the body of a loop once and says nothing for GPUs. Here the text of the optimised
program (HLO, as `compiled.as_text()` gives it) is walked from its entry, and what stands in a loop counts as often as
the loop turns.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

BITS = {"pred": 8, "token": 0, "opaque": 0}
FREE = frozenset(
    (
        "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "iota",
        "after-all", "partition-id", "replica-id", "opt-barrier", "custom-call-done", "async-update",
    )
)  # fmt: skip
"""Instructions that move nothing by themselves."""

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_ARRAY = re.compile(r"\b(pred|token|opaque|bf16|[sufc]\d+\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_CALLED = re.compile(r"(?:calls|body|to_apply)=%?([\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    shape: str
    opcode: str
    inside: str  # what stands in its brackets: operands, or the value of a constant
    rest: str  # attributes behind them

    @functools.cached_property
    def operands(self) -> tuple[str, ...]:
        return tuple(re.findall(r"%([\w.\-]+)", self.inside))

    @property
    def bytes(self) -> int:
        """Of its result in a device's main memory; what a compiler puts into faster memory (`S(1)`) is not there."""
        return _bytes(self.shape)

    @property
    def called(self) -> list[str]:
        """The computations it runs; for each of the elements that a reduction adds, say, nothing is counted."""
        return _CALLED.findall(self.rest)


Computation = Mapping[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Bytes of one execution of a program, per device.

    sent: to other devices, by kind of collective; as many as the best known algorithm sends along a ring: (n-1)/n of a
        gathered or scattered array, twice that of one that is summed everywhere.
    memory: read from and written to main memory.
    """

    sent: Mapping[str, float]
    memory: float


def traffic(text: str) -> Traffic:
    """The traffic of a compiled program."""
    computations, entry = parse(text)
    sent: dict[str, float] = collections.defaultdict(float)
    memory = 0.0
    seen: set[tuple[str, str]] = set()  # a collective in flight is named where it starts, goes on and ends
    for instruction, inside, times, fused in _walk(computations, entry):
        kind = _collective(instruction)
        if kind is not None:
            if fused and kind == "all-reduce" and _keeps_a_part(computations[inside]):
                kind = "reduce-scatter"
            channel = re.search(r"channel_id=(\d+)", instruction.rest)
            mark = (kind, channel[1]) if channel else (inside, instruction.name)
            if mark not in seen:
                seen.add(mark)
                sent[kind] += times * _sent(kind, instruction)
        if not fused:
            memory += times * _moved(instruction, computations[inside], computations)
    return Traffic(dict(sent), memory)


def _walk(
    computations: Mapping[str, Computation], entry: str, times: float = 1.0, fused: bool = False
) -> Iterator[tuple[Instruction, str, float, bool]]:
    """Every instruction that is executed: it, its computation, how often, and whether within a fusion."""
    for instruction in computations[entry].values():
        yield instruction, entry, times, fused
        turns = _turns(instruction, computations) if instruction.opcode == "while" else 1
        if instruction.opcode == "conditional":
            # Which branch is taken is not known before: all are counted, as if each were.
            called = re.findall(r"%([\w.\-]+)", _braces(instruction.rest, "branch_computations"))
            called += re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", instruction.rest)
        elif instruction.opcode in ("while", "fusion", "call", "async-start", "custom-call"):
            called = instruction.called
        else:
            called = []
        for name in called:
            if name in computations:
                within = fused or instruction.opcode in ("fusion", "custom-call")
                yield from _walk(computations, name, times * turns, within)


# ------------------------------------------------------------------------------------------------------------- reading


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """All computations by name, and the name of the entry."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if current is None:
            begun = _COMPUTATION.match(line)
            if begun:
                current = computations.setdefault(begun[2], {})
                entry = begun[2] if begun[1] else entry
        elif line.rstrip() == "}":  # attributes of kernels may go on over lines, and those may begin so
            current = None
        elif found := _INSTRUCTION.match(line):
            instruction = _instruction(found[1], found[2])
            current[instruction.name] = instruction
    return dict(computations), entry


def _instruction(name: str, text: str) -> Instruction:
    end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    shape, behind = text[:end], text[end:].lstrip()
    opcode, _, tail = behind.partition("(")
    end = _closing("(" + tail, 0)
    return Instruction(name, shape, opcode, tail[: end - 1], tail[end:])


def _closing(text: str, start: int) -> int:
    """Where the bracket that opens at `start` closes."""
    depth = 0
    for place in range(start, len(text)):
        depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(text[place], 0)
        if not depth:
            return place
    return len(text)


def _braces(text: str, name: str) -> str:
    """What stands in the braces of an attribute; empty where there is none."""
    place = text.find(f"{name}={{")
    if place < 0:
        return ""
    start = place + len(name) + 1
    return text[start : _closing(text, start) + 1]


@functools.cache
def _bytes(shape: str, everywhere: bool = False) -> int:
    total = 0
    for kind, sizes, layout in _ARRAY.findall(shape):
        if everywhere or not re.search(r"S\([1-9]", layout):
            bits = BITS.get(kind) if kind in BITS else int(re.findall(r"\d+", kind)[0])
            total += math.prod(int(size.lstrip("<=")) for size in sizes.split(",") if size) * (bits or 0) // 8
    return total


# --------------------------------------------------------------------------------------------------------------- loops


def _turns(loop: Instruction, computations: Mapping[str, Computation]) -> int:
    """How often a loop turns: as XLA notes it, or as its condition, `counter < constant`, and the counter's step
    say."""
    noted = re.search(r'known_trip_count[^\d]*"?(\d+)', loop.rest)
    if noted:
        return int(noted[1])
    condition = computations[re.findall(r"condition=%?([\w.\-]+)", loop.rest)[0]]
    body = computations[re.findall(r"body=%?([\w.\-]+)", loop.rest)[0]]
    for compare in condition.values():
        if compare.opcode != "compare" or "direction=LT" not in compare.rest:
            continue
        counter, bound = (condition[name] for name in compare.operands)
        limit, place = _constant(bound), re.search(r"index=(\d+)", counter.rest)
        if limit is not None and place is not None:
            return -(-limit // _step(body, int(place[1])))
    return 1


def _step(body: Computation, place: int) -> int:
    """By how much a loop's body raises its counter, which stands at a place of what it carries."""
    root = list(body.values())[-1]
    raised = body.get(root.operands[place]) if place < len(root.operands) else None
    total = 0
    while raised is not None and raised.opcode == "add":
        steps = [_constant(body[name]) for name in raised.operands if name in body]
        total += next((step for step in steps if step is not None), 0)
        before = [body[name] for name in raised.operands if name in body and _constant(body[name]) is None]
        raised = before[0] if before else None
    return total or 1


def _constant(instruction: Instruction) -> int | None:
    found = re.fullmatch(r"-?\d+", instruction.inside) if instruction.opcode == "constant" else None
    return int(found[0]) if found else None


# --------------------------------------------------------------------------------------------------------- collectives


def _collective(instruction: Instruction) -> str | None:
    name = instruction.opcode.removesuffix("-start")
    return name if name in COLLECTIVES else None


def _keeps_a_part(computation: Computation) -> bool:
    """Whether a fusion cuts its part out of what is summed: how TPUs write a reduce-scatter."""
    return any(instruction.opcode == "dynamic-slice" for instruction in computation.values())


def _sent(kind: str, instruction: Instruction) -> float:
    count = group_size(instruction.rest)
    arrays = [f"{kind}[{sizes}]" for kind, sizes, _ in _ARRAY.findall(instruction.shape)]
    if instruction.opcode.endswith("-start") and len(arrays) > 1:
        # (operands, results, ...): the results, which for a gather are the larger half
        arrays = [array for array in arrays if not array.endswith("[]")]
        arrays = arrays[len(arrays) // 2 :] if kind != "all-reduce" else arrays
    size = sum(_bytes(array, everywhere=True) for array in arrays)
    if kind == "collective-permute":
        return float(size)
    share = (count - 1) / count
    if kind == "reduce-scatter" and instruction.opcode.startswith(kind):
        return size * count * share  # the result is one part
    return (2 if kind == "all-reduce" else 1) * size * share


def group_size(attributes: str) -> int:
    """How many devices take part together; where nothing is said, it makes no difference to what is counted."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return listed[1].count(",") + 1
    if tiled := re.search(r"replica_groups=\[(\d+),(\d+)\]", attributes):
        return int(tiled[2])
    if meshed := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", meshed[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", meshed[2]))
    return 1


# -------------------------------------------------------------------------------------------------------------- memory


def _moved(instruction: Instruction, within: Computation, computations: Mapping[str, Computation]) -> float:
    """Bytes that an instruction reads and writes. Of an array of which a fusion takes a slice, the slice; of one that
    it changes in place, what is changed."""
    opcode = instruction.opcode
    if opcode in FREE or opcode.endswith(("-start", "-done")):
        return 0.0
    operands = [within[name] for name in instruction.operands if name in within]
    if opcode == "dynamic-slice":
        return 2.0 * instruction.bytes
    if opcode == "dynamic-update-slice":
        return 2.0 * operands[1].bytes
    if opcode != "fusion" or not instruction.called:
        return float(instruction.bytes + sum(operand.bytes for operand in operands))
    inner = computations[instruction.called[0]]
    read = sum(_read(operand, place, inner) for place, operand in enumerate(operands))
    return float(read + _written(instruction, inner))


def _read(operand: Instruction, place: int, inner: Computation) -> int:
    """What a fusion reads of an operand."""
    mine = next((one for one in inner.values() if one.opcode == "parameter" and one.inside == str(place)), None)
    if mine is None or not operand.bytes:
        return operand.bytes
    users = _users(mine.name, inner)
    if users and all(user.opcode == "dynamic-slice" for user in users):
        return min(operand.bytes, sum(_bytes(user.shape, everywhere=True) for user in users))
    if users and all(user.opcode == "dynamic-update-slice" and _is_first(mine.name, user, inner) for user in users):
        return 0
    return operand.bytes


def _written(fusion: Instruction, inner: Computation) -> int:
    root = list(inner.values())[-1]
    while root.opcode in ("bitcast", "copy", "convert") and root.operands and root.operands[0] in inner:
        root = inner[root.operands[0]]
    if root.opcode == "dynamic-update-slice" and fusion.bytes:
        return _bytes(inner[root.operands[1]].shape, everywhere=True)
    return fusion.bytes


def _users(name: str, inner: Computation) -> list[Instruction]:
    """What uses a value, looked at through changes of its shape alone."""
    found: list[Instruction] = []
    for one in inner.values():
        if name in one.operands:
            found += _users(one.name, inner) if one.opcode in ("bitcast", "reshape") else [one]
    return found


def _is_first(name: str, user: Instruction, inner: Computation) -> bool:
    first: str | None = user.operands[0]
    while first is not None and first != name:
        one = inner.get(first)
        first = one.operands[0] if one is not None and one.opcode in ("bitcast", "reshape") and one.operands else None
    return first == name
