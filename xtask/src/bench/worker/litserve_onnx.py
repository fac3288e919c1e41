"""LitServe with an ONNX model, by ONNX Runtime with one thread in each of two workers.

usage: litserve_onnx.py MODEL.onnx PORT
"""

import sys

import litserve
import numpy
import onnxruntime

DTYPES = {"FP32": numpy.float32, "INT32": numpy.int32, "INT64": numpy.int64}


class Onnx(litserve.LitAPI):
    def setup(self, device):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(sys.argv[1], options)
        self.names = [output.name for output in self.session.get_outputs()]

    def decode_request(self, request):
        return {
            tensor["name"]: numpy.array(tensor["data"], DTYPES[tensor["datatype"]]).reshape(tensor["shape"])
            for tensor in request["inputs"]
        }

    def predict(self, inputs):
        return self.session.run(None, inputs)

    def encode_response(self, outputs):
        return {"outputs": [{"name": n, "data": v.ravel().tolist()} for n, v in zip(self.names, outputs)]}


if __name__ == "__main__":
    server = litserve.LitServer(Onnx(), accelerator="cpu", workers_per_device=2)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), num_api_servers=2, log_level="error", generate_client_file=False)
