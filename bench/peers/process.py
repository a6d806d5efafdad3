"""The processes that are measured: peers, each in one that stays, and our tool."""

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
PREPARE_S, TIME_S = 1200, 1200


class Failed(Exception):
    """Why a peer or a route gives no number."""


def environment() -> dict[str, str]:
    """The user's without thread settings that would differ from --threads; Intel's OpenMP must not spin between turns."""
    dropped = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "MKL_NUM_THREADS")
    return {name: value for name, value in os.environ.items() if name not in dropped} | {"KMP_BLOCKTIME": "0"}


class Peer:
    """A worker process; made anew for every case, so that a peer that dies in one is there in the next."""

    def __init__(self, name: str, module: str, log: Path):
        self.name, self.module, self.log = name, module, log
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        self.stop()
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "worker.py"), self.module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(),
                start_new_session=True,
            )

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def ask(self, timeout: float, **request: object) -> dict:
        if not self.process:
            raise Failed("its process has ended")
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
            ready, _, _ = select.select([self.process.stdout], [], [], timeout)
            line = self.process.stdout.readline() if ready else b""
        except BrokenPipeError:
            ready, line = [True], b""
        if not line:
            code = self.process.wait(10) if ready else None
            self.stop()
            if not ready:
                raise Failed(f"no answer within {timeout:.0f} s")
            raise Failed(
                "its process was killed, most likely for want of memory" if code == -9 else f"its process ended with {code}"
            )
        answer = json.loads(line)
        if "failed" in answer:
            raise Failed(answer["failed"])
        return answer


def split(method: str) -> tuple[str, list[str]]:
    """The method and the options of its products: METHOD, METHOD/int8, METHOD/int8+attention."""
    method, _, products = method.partition("/")
    options = ["--matmul", "int8"] if products.startswith("int8") else []
    return method, options + (["--attention", "int8"] if products.endswith("+attention") else [])


class Ours:
    """Our tool; every call is a process."""

    def __init__(self, tool: Path, model: Path, text: Path, threads: int):
        self.tool, self.model, self.text, self.threads = tool, model, text, threads

    def call(self, *arguments: object) -> str:
        command = [str(self.tool), *map(str, arguments)]
        try:
            result = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
        except OSError as error:
            raise Failed(str(error)) from error
        if result.returncode != 0:
            raise Failed((result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1])
        return result.stdout

    def bench(self, *arguments: object) -> list[dict]:
        return json.loads(self.call("bench", *arguments, "--threads", self.threads, "--json"))

    def peak(self) -> float:
        """GFLOP/s of the peak of our kernel set's multiply-add, right now."""
        return self.bench("attention", "--shape", "q64,kv128,h1:1,d64", "--methods", "dense", "--runs", 5)[0]["peak_gflops"]

    def attention(self, shape: str, products: str) -> dict:
        """The fields ms and error, among others."""
        return self.bench("attention", "--shape", shape, "--methods", "dense", "--runs", 2, "--attention", products)[0]

    def prefill(self, method: str, length: int) -> float:
        method, products = split(method)
        where = ("-m", self.model, "-f", self.text, "--lengths", length)
        return self.bench("prefill", *where, "--methods", method, "--runs", 1, "--warmup", 1, *products)[0]["ttft_ms"]

    def tokens(self, length: int) -> list[int]:
        """The text's tokens, repeated or cut to the length, as `bench prefill` does it."""
        ids = json.loads(self.call("tokenize", "-m", self.model, "-f", self.text))
        return (ids * (length // len(ids) + 1))[:length]

    def first_token(self, method: str, ids: Sequence[int]) -> int:
        method, products = split(method)
        selector, _, executor = method.rpartition("+")
        how = ["--executor", executor, *products] + (["--selector", selector] if selector else [])
        with tempfile.TemporaryDirectory() as folder:
            tokens, logits = Path(folder, "ids.npy"), Path(folder, "logits.npy")
            np.save(tokens, np.array(ids, np.uint32))
            self.call("logits", "-m", self.model, "--tokens", tokens, "--out", logits, "--threads", self.threads, *how)
            return int(np.load(logits)[-1].argmax())
