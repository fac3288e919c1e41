"""Asks a gateway, or a worker, as users do: by tritonclient over HTTP and over gRPC, unmodified.

Arguments: address (host:port), gRPC address, name of a deployment of the linear model y = w·x + b, which gives 3.0 for
[[3, 4]]. Exits with a traceback where an answer is not what the protocol says.
"""

import sys

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

address, grpc_address, name = sys.argv[1:]
client = http.InferenceServerClient(address, concurrency=4)


def ask(rows, binary_in, binary_out, **kwargs):
    x = http.InferInput("x", list(rows.shape), "FP32")
    x.set_data_from_numpy(rows, binary_data=binary_in)
    y = http.InferRequestedOutput("y", binary_data=binary_out)
    return client.infer(name, [x], outputs=[y], **kwargs)


# Health and metadata.
assert client.is_server_live() and client.is_server_ready()
assert client.is_model_ready(name)
assert not client.is_model_ready("nobody")
extensions = client.get_server_metadata()["extensions"]
assert "binary_tensor_data" in extensions, extensions
metadata = client.get_model_metadata(name)
assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}], metadata
index = client.get_model_repository_index()
assert any(item["name"] == name and item["state"] == "READY" for item in index), index

# Inference: every mix of JSON and binary, one row and many, with and without compression.
one = np.array([[3, 4]], "f4")
for binary_in in (False, True):
    for binary_out in (False, True):
        answer = ask(one, binary_in, binary_out, request_id="7")
        assert answer.get_response()["id"] == "7"
        assert answer.as_numpy("y").tolist() == [[3.0]], answer.as_numpy("y")
many = np.random.default_rng(1).normal(0, 1, (3000, 2)).astype("f4")
expected = ask(many, False, False).as_numpy("y")
assert expected.shape == (3000, 1)
for coding in (None, "gzip", "deflate"):
    for binary in (False, True):
        answer = ask(many, binary, binary, request_compression_algorithm=coding, response_compression_algorithm=coding)
        np.testing.assert_array_equal(answer.as_numpy("y"), expected)

# No outputs named: all of them, as the request says of all.
x = http.InferInput("x", [1, 2], "FP32")
x.set_data_from_numpy(one)
assert client.infer(name, [x]).as_numpy("y").tolist() == [[3.0]]
version = client.infer(name, [x]).get_response()["model_version"]
assert client.infer(name, [x], model_version=version).as_numpy("y").tolist() == [[3.0]]

# At once, by several connections.
requests = [client.async_infer(name, [x]) for _ in range(50)]
assert all(request.get_result().as_numpy("y").tolist() == [[3.0]] for request in requests)

# What is wrong is said, with the status that it deserves.
for what, model, shape, status in [
    ("an unknown model", "nobody", [1, 2], "404"),
    ("a wrong shape", name, [1, 3], "400"),
]:
    wrong = http.InferInput("x", shape, "FP32")
    wrong.set_data_from_numpy(np.zeros(shape, "f4"))
    try:
        client.infer(model, [wrong])
        sys.exit(f"{what} was answered")
    except InferenceServerException as error:
        assert error.status() == status and error.message(), (what, error.status(), error.message())

# Over gRPC: the same.
client = grpc.InferenceServerClient(grpc_address)
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(name)
metadata = client.get_model_metadata(name, as_json=True)
assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "2"]}], metadata


def call(rows, model=name, **kwargs):
    x = grpc.InferInput("x", list(rows.shape), "FP32")
    x.set_data_from_numpy(rows)
    return client.infer(model, [x], outputs=[grpc.InferRequestedOutput("y")], **kwargs)


answer = call(one, request_id="8")
assert answer.get_response().id == "8" and answer.as_numpy("y").tolist() == [[3.0]]
np.testing.assert_array_equal(call(many).as_numpy("y"), expected)
assert call(one, model_version=version).as_numpy("y").tolist() == [[3.0]]
for what, model, shape, code in [
    ("an unknown model", "nobody", [1, 2], "StatusCode.NOT_FOUND"),
    ("a wrong shape", name, [1, 3], "StatusCode.INVALID_ARGUMENT"),
]:
    try:
        call(np.zeros(shape, "f4"), model)
        sys.exit(f"{what} was answered over gRPC")
    except InferenceServerException as error:
        assert error.status() == code and error.message(), (what, error.status(), error.message())
print("all as the protocol says")
