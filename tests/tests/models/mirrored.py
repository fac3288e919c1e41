"""What mirroring should find, told by Python's onnxruntime. Three verbs:

    derive SOURCE TARGET SCALE      the model with its weights multiplied by 1 + SCALE * normal noise, or rounded to half
                                    precision where SCALE is 0
    negate SOURCE TARGET            the model with its first output negated
    ask KIND REFERENCE CANDIDATE URL COUNT
                                    asks the deployment at URL (…/v2/models/NAME) COUNT seeded requests; prints how many
                                    of them the candidate answers otherwise than the reference, as docs/experiments.md says
"""

import json
import sys

import numpy as np
import onnxruntime
from reference import ask

ABSOLUTE, RELATIVE = 1e-3, 1e-2
# Numbers of fields in onnx.proto.
GRAPH, INITIALIZER, DATA_TYPE, RAW_DATA, FLOAT = 7, 5, 2, 9, 1
SHORTEST_WEIGHTS = 4096


def varint(data, at):
    value = shift = 0
    while True:
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def fields(data, at, end):
    """Number, value or start, and end of each varint and each field of some length."""
    while at < end:
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
            yield key >> 3, value, None
        elif key & 7 == 2:
            length, at = varint(data, at)
            yield key >> 3, at, at + length
            at += length
        else:
            at += {1: 8, 5: 4}[key & 7]


def derive(source, target, scale):
    with open(source, "rb") as file:
        data = bytearray(file.read())
    rng = np.random.default_rng(1)
    graphs = [(start, end) for number, start, end in fields(data, 0, len(data)) if number == GRAPH]
    tensors = [(s, e) for graph in graphs for number, s, e in fields(data, *graph) if number == INITIALIZER]
    for tensor in tensors:
        parts = {number: (start, end) for number, start, end in fields(data, *tensor)}
        start, end = parts.get(RAW_DATA, (0, 0))
        if parts.get(DATA_TYPE) != (FLOAT, None) or end - start < SHORTEST_WEIGHTS:
            continue
        weights = np.frombuffer(bytes(data[start:end]), "<f4")
        changed = weights * (1 + scale * rng.standard_normal(weights.shape)) if scale else weights.astype("<f2")
        data[start:end] = changed.astype("<f4").tobytes()
    with open(target, "wb") as file:
        file.write(data)


def negate(source, target):
    import onnx

    model = onnx.load(source)
    name = model.graph.output[0].name
    for node in model.graph.node:
        node.input[:] = [name + "_before" if i == name else i for i in node.input]
        node.output[:] = [name + "_before" if o == name else o for o in node.output]
    model.graph.node.append(onnx.helper.make_node("Neg", [name + "_before"], [name]))
    onnx.save(model, target)


def requests(kind, count):
    rng = np.random.default_rng(20261125)
    time = np.arange(576) / 16_000
    for _ in range(count):
        if kind == "magika":
            # Stretches of bytes of a narrow range: text of some alphabet, runs, noise. 256 is padding.
            tokens = np.full(2048, 256)
            for start in (0, 1024):
                low = rng.integers(0, 200)
                tokens[start : start + rng.integers(64, 1025)] = low
                tokens[start : start + 1024] += np.where(
                    tokens[start : start + 1024] < 256, rng.integers(0, rng.integers(2, 57), 1024), 0
                )
            yield {"bytes": tokens[None].astype("i4")}
            continue
        tone = rng.random() * np.sin(2 * np.pi * rng.uniform(80, 3_000) * time)
        yield {
            "input": (tone + 0.1 * rng.random() * rng.standard_normal(576))[None].astype("f4"),
            "state": rng.normal(0, 0.5, (2, 1, 128)).astype("f4"),
            "sr": np.array(16_000, "i8"),
        }


def differs(reference, candidate):
    if reference.ndim >= 2 and reference.shape[-1] >= 2:
        return bool((reference.argmax(-1) != candidate.argmax(-1)).any())
    return bool((np.abs(candidate - reference) > ABSOLUTE + RELATIVE * np.abs(reference)).any())


def main(kind, reference, candidate, url, count):
    models = [onnxruntime.InferenceSession(m, providers=["CPUExecutionProvider"]) for m in (reference, candidate)]
    differing = 0
    for inputs in requests(kind, count):
        ask(url, inputs)
        outputs = [[o.astype("f8") for o in model.run(None, inputs)] for model in models]
        differing += any(differs(*pair) for pair in zip(*outputs))
    print(json.dumps({"differing": differing}))


if __name__ == "__main__":
    if sys.argv[1] == "derive":
        derive(sys.argv[2], sys.argv[3], float(sys.argv[4]))
    elif sys.argv[1] == "negate":
        negate(sys.argv[2], sys.argv[3])
    else:
        main(*sys.argv[2:6], int(sys.argv[6]))
