"""Asks a gateway, or a worker, as users do: by KServe's clients over REST (V1 and V2) and over gRPC, unmodified.

Arguments: address (host:port), gRPC address, name of a deployment of the linear model y = w·x + b, which gives 3.0 for
[[3, 4]]. Exits with a traceback where an answer is not what the protocol says.
"""

import asyncio
import sys

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

address, grpc_address, name = sys.argv[1:]
url = f"http://{address}"
one = np.array([[3, 4]], "f4")


def request(model=name, rows=one, binary=False):
    x = InferInput("x", list(rows.shape), "FP32")
    x.set_data_from_numpy(rows, binary_data=binary)
    return InferRequest(model, [x], request_id="7")


async def rest_v2():
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    assert await client.is_server_live(url) and await client.is_server_ready(url)
    assert await client.is_model_ready(url, name)
    assert not await client.is_model_ready(url, "nobody")
    for binary in (False, True):
        answer = await client.infer(url, request(binary=binary), model_name=name)
        assert answer.id == "7" and answer.outputs[0].as_numpy().tolist() == [[3.0]], answer
    for what, model, rows, status in [
        ("an unknown model", "nobody", one, 404),
        ("a wrong shape", name, np.zeros([1, 3], "f4"), 400),
    ]:
        try:
            await client.infer(url, request(model, rows), model_name=model)
            sys.exit(f"{what} was answered")
        except httpx.HTTPStatusError as error:
            assert error.response.status_code == status, (what, error)
    await client.close()


async def rest_v1():
    client = InferenceRESTClient(RESTConfig(protocol="v1", retries=0))
    assert await client.is_server_live(url)
    assert await client.is_model_ready(url, name)
    answer = await client.infer(url, {"instances": [[3, 4], [0, 0]]}, model_name=name)
    assert answer == {"predictions": [[3.0], [2.0]]}, answer
    try:
        await client.infer(url, {"instances": [[3, 4, 5]]}, model_name=name)
        sys.exit("a wrong shape was answered over V1")
    except httpx.HTTPStatusError as error:
        assert error.response.status_code == 400 and "must have shape" in str(error), error
    await client.close()


async def over_grpc():
    client = InferenceGRPCClient(grpc_address, retries=0)
    assert await client.is_server_live() and await client.is_server_ready()
    assert await client.is_model_ready(name)
    answer = await client.infer(request())
    assert answer.outputs[0].as_numpy().tolist() == [[3.0]], answer
    try:
        await client.infer(request("nobody"))
        sys.exit("an unknown model was answered over gRPC")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
    await client.close()


async def main():
    await rest_v2()
    await rest_v1()
    await over_grpc()


asyncio.run(main())
print("all as the protocol says")
