"""Asks a model by Python's onnxruntime and by Modelyard's gateway, on the same seeded inputs.

Arguments: kind (silero | magika), model file, URL of the deployment (…/v2/models/NAME), tolerance.
Prints the largest absolute difference of each output; exits with 1 if one is above the tolerance.
"""

import json
import sys
import urllib.request

import numpy as np
import onnxruntime

DATATYPES = {"float32": "FP32", "int64": "INT64", "int32": "INT32"}


def requests(kind, session):
    rng = np.random.default_rng(20261124)
    names = [i.name for i in session.get_inputs()]
    for batch in (1, 3):
        for _ in range(5):
            if kind == "magika":
                yield {"bytes": rng.integers(0, 257, (batch, 2048)).astype("i4")}
                continue
            # 64 samples of context and 512 of sound at 16 kHz, as the package itself calls it.
            inputs = {
                "input": rng.normal(0, 0.1, (batch, 576)).astype("f4"),
                "state": rng.normal(0, 0.3, (2, batch, 128)).astype("f4"),
                "sr": np.array(16000, "i8"),
            }
            yield {name: inputs[name] for name in names}


def ask(url, inputs):
    tensors = [
        {"name": n, "datatype": DATATYPES[str(v.dtype)], "shape": list(v.shape), "data": v.flatten().tolist()}
        for n, v in inputs.items()
    ]
    body = json.dumps({"inputs": tensors}).encode()
    with urllib.request.urlopen(urllib.request.Request(url + "/infer", data=body, method="POST")) as answer:
        return {o["name"]: np.array(o["data"]).reshape(o["shape"]) for o in json.load(answer)["outputs"]}


def main(kind, model, url, tolerance):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    worst = dict.fromkeys(names, 0.0)
    for inputs in requests(kind, session):
        got = ask(url, inputs)
        for name, wanted in zip(names, session.run(None, inputs)):
            if got[name].shape != wanted.shape:
                sys.exit(f"{name}: shape {got[name].shape}, expected {wanted.shape}")
            worst[name] = max(worst[name], float(np.abs(got[name] - wanted).max()))
    print(json.dumps(worst))
    if max(worst.values()) > tolerance:
        sys.exit(f"the largest difference is above {tolerance}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))
