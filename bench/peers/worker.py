"""A peer in a process of its own. Reads one JSON request a line, answers one JSON line.

{"do": "hello"}                                        -> versions and the names of the routes
{"do": "attention", "route": R, "shape": S, "threads": N}
                                                       -> precision and error of a route that is then ready
{"do": "prefill", "route": R, "model": M, "longest": L, "threads": N}
                                                       -> ready for prompts of up to L tokens
{"do": "time", "route": R}                             -> milliseconds of attention
{"do": "time", "route": R, "ids": [...]}               -> milliseconds of a prefill, and the first token
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import case

WARM_UP_BELOW_MS = 2000


def timed(run: Callable[[], object]) -> tuple[float, object]:
    start = time.perf_counter()
    result = run()
    return 1e3 * (time.perf_counter() - start), result


class Worker:
    def __init__(self, peer: str):
        self.module = importlib.import_module(peer)
        self.routes: dict[str, case.Route] = {}
        self.prefills: dict = {}
        self.shape: str = ""

    def hello(self, _: dict) -> dict:
        names = {part: list(getattr(self.module, part.upper(), {})) for part in ("attention", "prefill")}
        return {"version": self.module.version()} | names

    def attention(self, request: dict) -> dict:
        shape = case.parse_shape(request["shape"])
        if self.shape != shape.text:
            self.inputs = case.make_inputs(shape)
            self.check = case.Check(shape, self.inputs)
            self.shape = shape.text
        route = self.module.ATTENTION[request["route"]](shape, self.inputs, request["threads"])
        route.run()
        error = self.check.error(route.output())
        self.routes[request["route"]] = route
        return {"precision": route.precision, "error": error}

    def prefill(self, request: dict) -> dict:
        build = self.module.PREFILL[request["route"]]
        self.prefills[request["route"]] = build(request["model"], request["longest"], request["threads"])
        return {}

    def time(self, request: dict) -> dict:
        """Attention: the better of two runs. Prefill: one run, or the second where it is short: others had the caches."""
        name = request["route"]
        if ids := request.get("ids"):
            ms, token = timed(lambda: self.prefills[name](ids))
            if ms < WARM_UP_BELOW_MS:
                ms, token = timed(lambda: self.prefills[name](ids))
            return {"ms": ms, "token": int(token)}
        self.inputs = self.check = None  # all routes have their own copies
        return {"ms": min(timed(self.routes[name].run)[0] for _ in range(2))}


def describe(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:300]}"


def main() -> None:
    """Libraries write to standard output, too: answers go to a copy of it, everything else to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    Path("/proc/self/oom_score_adj").write_text("1000")  # when memory runs out, the peer goes and the driver stays
    worker = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            worker = worker or Worker(sys.argv[1])
            answer = getattr(worker, request.pop("do"))(request)
        except Exception as error:  # noqa: BLE001 - whatever a peer raises becomes the reason in its row
            answer = {"failed": describe(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
