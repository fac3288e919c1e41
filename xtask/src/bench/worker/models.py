"""Makes the models of `bench worker` that nobody else made, and a request for each.

usage: models.py DIRECTORY NAME=MODEL.onnx ...

Writes mlp.onnx (784-512-256-10, random weights) and forest.onnx (100 trees by scikit-learn) into DIRECTORY, and for these
and the models named: NAME.json, a request of the Open Inference Protocol with one row; NAME.bin, the same with binary
tensors both ways; NAME.length, the bytes of its JSON.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from sklearn.ensemble import RandomForestClassifier
from skl2onnx import to_onnx

DATATYPES = {"tensor(float)": ("FP32", np.float32), "tensor(int32)": ("INT32", np.int32), "tensor(int64)": ("INT64", np.int64)}
# Where a model leaves open what it wants.
SHAPES = {("silero", "input"): [1, 512], ("silero", "state"): [2, 1, 128], ("silero", "sr"): [], ("forest", "X"): [1, 8]}
VALUES = {("silero", "sr"): 16_000}


def mlp(path, random):
    sizes = [784, 512, 256, 10]
    nodes, weights, last = [], [], "x"
    for layer, (rows, columns) in enumerate(zip(sizes, sizes[1:])):
        weight = random.standard_normal((rows, columns)) / np.sqrt(rows)
        weights.append(numpy_helper.from_array(weight.astype(np.float32), f"w{layer}"))
        weights.append(numpy_helper.from_array(np.zeros(columns, np.float32), f"b{layer}"))
        is_last = layer == len(sizes) - 2
        out = "y" if is_last else f"h{layer}"
        nodes.append(helper.make_node("Gemm", [last, f"w{layer}", f"b{layer}"], [out if is_last else f"g{layer}"]))
        if not is_last:
            nodes.append(helper.make_node("Relu", [f"g{layer}"], [out]))
        last = out
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", sizes[0]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", sizes[-1]])
    graph = helper.make_graph(nodes, "mlp", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def forest(path, random):
    rows = random.standard_normal((2_000, 8)).astype(np.float32)
    labels = (rows[:, 0] + rows[:, 1] * rows[:, 2] > 0).astype(np.int64)
    model = RandomForestClassifier(n_estimators=100, max_depth=10, random_state=0).fit(rows, labels)
    onnx.save(to_onnx(model, rows[:1], options={"zipmap": False}), path)


def requests(directory, name, model, random):
    inputs, tensors = [], []
    for spec in onnxruntime.InferenceSession(str(model)).get_inputs():
        datatype, dtype = DATATYPES[spec.type]
        shape = SHAPES.get((name, spec.name)) or [d if isinstance(d, int) else 1 for d in spec.shape]
        if (name, spec.name) in VALUES:
            shape, values = [], np.array(VALUES[name, spec.name], dtype)
        elif dtype == np.float32:
            values = random.standard_normal(shape).astype(dtype)
        else:
            values = random.integers(0, 256, shape).astype(dtype)
        # As few digits as tell the value.
        data = [float(str(v)) if dtype == np.float32 else int(v) for v in values.ravel()]
        inputs.append({"name": spec.name, "shape": shape, "datatype": datatype, "data": data})
        tensors.append(values.tobytes())
    (directory / f"{name}.json").write_text(json.dumps({"inputs": inputs}, separators=(",", ":")))
    for entry, tensor in zip(inputs, tensors):
        del entry["data"]
        entry["parameters"] = {"binary_data_size": len(tensor)}
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}, separators=(",", ":")).encode()
    (directory / f"{name}.bin").write_bytes(head + b"".join(tensors))
    (directory / f"{name}.length").write_text(str(len(head)))


def main():
    directory = Path(sys.argv[1])
    random = np.random.default_rng(1)
    models = dict(argument.split("=", 1) for argument in sys.argv[2:])
    models |= {"mlp": directory / "mlp.onnx", "forest": directory / "forest.onnx"}
    mlp(models["mlp"], random)
    forest(models["forest"], random)
    for name, model in models.items():
        requests(directory, name, model, random)


main()
