"""llama.cpp's server from the package xllamacpp, on loopback; run by the Python of `.local/real-model`.

Usage: python llama_server.py MODEL.gguf ALIAS PORT CONTEXT_TOKENS; LLAMA_API_KEY contains the key of its callers.
Source: https://github.com/xorbitsai/xllamacpp#openai-api-compatible-http-server
"""

# pyright: reportMissingImports=false, reportUnknownVariableType=false, reportUnknownMemberType=false
import os
import signal
import sys

import xllamacpp

if __name__ == "__main__":
    model, alias, port, context_tokens = sys.argv[1:]
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {alias}
    params.hostnames = ["127.0.0.1"]
    params.port = int(port)
    params.n_ctx = int(context_tokens)
    params.n_parallel = 1
    params.api_keys = [os.environ["LLAMA_API_KEY"]]
    params.ui = False
    server = xllamacpp.Server(params)  # serves in its own threads from here on
    signal.pause()
