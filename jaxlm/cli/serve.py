"""`jaxlm serve`: a model behind OpenAI's protocol, with a chat page."""

from __future__ import annotations

import os
import pathlib
import sys

from jaxlm.cli.arguments import Step, check_numbers, parse
from jaxlm.cli.generation import Dtype, ModelPath
from jaxlm.config import MeshConfig
from jaxlm.serve.limits import Limits


def run(argv: list[str]) -> None:
    """Serves the model that the arguments name."""
    parse(serve, argv, "jaxlm serve")


def serve(
    model: ModelPath,
    /,
    host: str = "127.0.0.1",
    port: int = 8000,
    slots: int = 16,
    name: str | None = None,
    api_keys: pathlib.Path | None = None,
    origins: tuple[str, ...] = (),
    trusted_proxies: str = "",
    max_len: int | None = None,
    step: Step = None,
    dtype: Dtype = None,
    mesh: MeshConfig = MeshConfig(),
    limits: Limits = Limits(),
) -> None:
    """Serves a model over HTTP: /v1/chat/completions, /v1/completions, /v1/embeddings, and a chat page at /.

    Without keys everybody who reaches the port may use it; docs/serving.md has the rest.

    Args:
        model: folder of a run or of a Hugging Face model, or a .gguf file.
        host: address to listen on; 0.0.0.0: all of this machine's.
        port: port to listen on; 0: any that is free.
        slots: sequences that are generated at the same time.
        name: of the model for clients; default: that of the folder.
        api_keys: file with an API key a line; keys are also taken from the environment variable JAXLM_API_KEYS.
        origins: web pages of other origins that may call the server, such as https://chat.example.com; *: all.
        trusted_proxies: addresses of proxies, with commas between them, whose X-Forwarded-For is believed.
        max_len: tokens of a prompt with its answer; default: what the model was made for.
        step: of a run's checkpoint, or best (by the validation metric); default: the newest.
        dtype: of the weights while writing; bfloat16 halves what each token reads; default: as the model has them.
        mesh: shape of the device mesh; if nothing is given, one device.
        limits: what one request may use.
    """
    try:
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as e:
        raise ValueError(
            f"jaxlm serve needs {e.name}, which is not installed: pip install 'jaxlm[serve]'"
        ) from e
    from jaxlm.run import load
    from jaxlm.serve import app, keys, server, start

    check_numbers(1, slots=slots, max_len=max_len)
    if not 0 <= port < 65536:
        raise ValueError(f"--port {port}: must be between 0 and 65535")
    accepted = keys.read_keys(api_keys, os.environ.get("JAXLM_API_KEYS"))
    bound = server.bind(host, port)
    server.set_up_log()
    served, worker = start.start(
        load.load(model, step=step, mesh=None if mesh == MeshConfig() else mesh, dtype=dtype),
        name=name,
        slots=slots,
        max_len=max_len,
        limits=limits,
    )
    address = f"http://{host}:{bound.getsockname()[1]}"

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    say(f"{served.name}: warming up; {address}/health tells when it is ready")
    made = server.make(
        app.make_app(served, worker, limits, accepted, origins),
        worker,
        limits,
        trusted_proxies=trusted_proxies,
        ready=lambda: say(f"{served.name} is ready at {address}"),
        say=say,
    )
    server.run(made, bound)
