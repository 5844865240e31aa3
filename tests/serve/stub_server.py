"""A server process over the stub engine; prints its port. Arguments: a JSON object."""

import json
import sys

import stub

from jaxlm.serve import app, server
from jaxlm.serve.keys import Keys
from jaxlm.serve.limits import Limits
from jaxlm.serve.worker import Worker


def main():
    """Serves until a signal comes."""
    options = json.loads(sys.argv[1])
    limits = Limits(**options.get("limits", {}))
    slots = options.get("slots", 4)
    if options.get("encoder"):
        served = stub.served_encoder()
    else:
        served = stub.served(slots, options.get("seconds", 0.0))
    worker = Worker(served.engine, served.embed, slots=slots, queue=limits.queue)
    bound = server.bind("127.0.0.1", options.get("port", 0))
    made = app.make_app(served, worker, limits, Keys(options.get("keys", ())))
    server.set_up_log()
    ready = lambda: print(bound.getsockname()[1], flush=True)
    server.run(made, worker, bound, limits, ready=ready)


try:
    main()
except server.Stopped as e:
    sys.exit(e.exit_code)
