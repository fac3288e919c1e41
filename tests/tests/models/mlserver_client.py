"""Asks a gateway, or a worker, as users of MLServer do: requests made by its codecs and sent as its documentation says,
over REST by requests and over gRPC by its stub, and the codecs that Seldon's clients decode answers with.

Arguments: address (host:port), gRPC address, name of a deployment of the linear model y = w·x + b, which gives 3.0 for
[[3, 4]]. Exits with a traceback where an answer is not what the protocol says.
"""

import sys
import urllib.error
import urllib.request

import grpc
import numpy as np
import pandas as pd
from mlserver.codecs import NumpyCodec, NumpyRequestCodec, PandasCodec
from mlserver.grpc import converters, dataplane_pb2_grpc
from mlserver.types import InferenceRequest, InferenceResponse, MetadataModelResponse, MetadataServerResponse

address, grpc_address, name = sys.argv[1:]
url = f"http://{address}/v2"
one = np.array([[3, 4]], "float32")


def get(path):
    with urllib.request.urlopen(url + path) as answer:
        return answer.read()


def infer(request, model=name):
    body = request.model_dump_json(exclude_none=True).encode()
    asked = urllib.request.Request(
        f"{url}/models/{model}/infer", body, {"content-type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(asked) as answer:
        return InferenceResponse.model_validate_json(answer.read())


def request(rows=one):
    return InferenceRequest(inputs=[NumpyCodec.encode_input("x", rows)])


# Over REST. The codecs add parameters (content types) to requests and inputs.
get("/health/live"), get("/health/ready"), get(f"/models/{name}/ready")
MetadataServerResponse.model_validate_json(get(""))
metadata = MetadataModelResponse.model_validate_json(get(f"/models/{name}"))
assert metadata.inputs[0].name == "x" and list(metadata.inputs[0].shape) == [-1, 2], metadata
answer = infer(request())
assert answer.model_name == name, answer
assert NumpyCodec.decode_output(answer.outputs[0]).tolist() == [[3.0]], answer
assert NumpyRequestCodec.decode_response(answer).tolist() == [[3.0]], answer
assert PandasCodec.decode_response(answer).shape == (1, 1), answer
whole = NumpyRequestCodec.encode_request(one)
whole.inputs[0].name = "x"
assert NumpyCodec.decode_output(infer(whole).outputs[0]).tolist() == [[3.0]]
# A frame has a tensor a column; a model with one input says that it lacks it.
for what, asked, model, status in [
    ("an unknown model", request(), "nobody", 404),
    ("a wrong shape", request(np.zeros([1, 3], "float32")), name, 400),
    ("a frame", PandasCodec.encode_request(pd.DataFrame({"a": [1.0], "b": [2.0]})), name, 400),
]:
    try:
        infer(asked, model)
        sys.exit(f"{what} was answered")
    except urllib.error.HTTPError as error:
        assert error.code == status and error.read(), (what, error)

# Over gRPC, by the stub that MLServer ships.
stub = dataplane_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(grpc_address))
for use_raw in (False, True):
    message = converters.ModelInferRequestConverter.from_types(request(), model_name=name, use_raw=use_raw)
    answer = converters.ModelInferResponseConverter.to_types(stub.ModelInfer(message))
    assert NumpyCodec.decode_output(answer.outputs[0]).tolist() == [[3.0]], answer
try:
    stub.ModelInfer(converters.ModelInferRequestConverter.from_types(request(), model_name="nobody"))
    sys.exit("an unknown model was answered over gRPC")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.NOT_FOUND, error
print("all as the protocol says")
