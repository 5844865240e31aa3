"""A server process over the stub engine; prints its port. Arguments: a JSON object."""

import json
import sys

import stub

from jaxlm.serve import app, server
from jaxlm.serve.keys import Keys
from jaxlm.serve.limits import Limits
from jaxlm.serve.worker import Worker


def build(options):
    """The server that the options describe, and its socket."""
    limits = Limits(**options.get("limits", {}))
    slots = options.get("slots", 4)
    if "real" in options:
        import real  # with JAX

        served = real.served(options["real"], slots)
    elif options.get("encoder"):
        served = stub.served_encoder()
    else:
        served = stub.served(slots, options.get("seconds", 0.0))
    worker = Worker(served.engine, served.embed, slots=slots, queue=limits.queue)
    made = app.make_app(served, worker, limits, Keys(options.get("keys", ())))
    bound = server.bind("127.0.0.1", options.get("port", 0))
    say = lambda text: print(text, file=sys.stderr, flush=True)
    ready = lambda: print(bound.getsockname()[1], flush=True)
    return server.make(made, worker, limits, ready=ready, say=say), bound


def main():
    """Serves until a signal comes."""
    made, bound = build(json.loads(sys.argv[1]))
    server.set_up_log()
    server.run(made, bound)


if __name__ == "__main__":
    try:
        main()
    except server.Stopped as e:
        sys.exit(e.exit_code)
