"""Measures our attention and prefill and those of other libraries in turns, in the same run, and checks every result.

Every round gives each route one turn; the best turn counts. The peak of our kernel set's multiply-add is measured around every round,
and a round in which it was more than 10 % under the best one seen is repeated, up to as many times again as were asked for.
"""

import argparse
import math
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from case import BOUNDS, parse_shape
from process import PREPARE_S, TIME_S, Failed, Ours, Peer
from result import OURS, Row, draw, write_csv, write_markdown, write_text

# Title, module, packages, and parts in which a module has routes.
PEERS = {
    "openvino": ("OpenVINO", "peer_openvino", ["openvino"], ["attention"]),
    "genai": ("OpenVINO GenAI", "peer_genai", ["openvino", "openvino-genai"], ["prefill"]),
    "onnxruntime": ("onnxruntime", "peer_onnxruntime", ["onnx", "onnxruntime"], ["attention"]),
    "torch": ("PyTorch", "peer_torch", ["torch"], ["attention"]),
    "llamacpp": ("llama.cpp", "peer_llamacpp", ["llama-cpp-python"], ["attention", "prefill"]),
}
SHAPES = "q1024,kv2048,h9:3,d64 q1024,kv8192,h9:3,d64 q1024,kv8192,h32:8,d128 q1024,kv32768,h32:8,d128 q1024,kv131072,h32:8,d128"
SLOW_SPELL = 0.9  # a round whose peak is under this share of the best is repeated
SLOW_ROUTE = 1.5  # a route that took this many times its peer's best in a good round has no more turns
PAUSE_S = 0.05  # between turns, for the last one's threads to go to sleep


@dataclass
class Entry:
    """A route that takes turns; row.note says why when it does not."""

    row: Row
    turn: Callable[[], float] | None = None
    ms: dict[int, float] = field(default_factory=dict)  # by round


@dataclass
class Comparison:
    ours: Ours
    peers: dict[str, Peer]
    versions: dict[str, dict]  # the hello of each
    runs: int
    peak: float = 0
    loads: list[float] = field(default_factory=list)

    def measure_peak(self) -> float:
        peak = self.ours.peak()
        self.peak = max(self.peak, peak)
        return peak

    def take_turns(self, entries: list[Entry]) -> None:
        """Rounds until enough were not slow; the best of these goes into each row."""
        peaks: list[float] = []
        while True:
            good = [i for i, peak in enumerate(peaks) if peak >= SLOW_SPELL * self.peak]
            if len(good) >= self.runs or len(peaks) >= 2 * self.runs:
                break
            before = self.measure_peak()
            for entry in entries:
                take_turn(entry, len(peaks))
            after = self.measure_peak()
            peaks.append(min(before, after))
            self.loads.append(os.getloadavg()[0])
            say(f"  round {len(peaks)}: peak {before:.0f} before, {after:.0f} GFLOP/s after, load {self.loads[-1]:.2f}")
            if peaks[-1] < SLOW_SPELL * self.peak:
                say(f"  warning: slow machine, under {SLOW_SPELL:.0%} of its {self.peak:.0f} GFLOP/s; this round does not count")
            elif not good:
                drop_slow_routes(entries, len(peaks) - 1)
        for entry in entries:
            times = [ms for i, ms in entry.ms.items() if i in good] or list(entry.ms.values())
            entry.row.ms = min(times, default=math.nan)
            if entry.ms and not any(i in good for i in entry.ms):
                entry.row.note = join(entry.row.note, "measured in a slow spell of the machine")

    def prepare(self, part: str, case: str, **request: object) -> list[Entry]:
        """Starts the peers that have this part, and makes every route of theirs ready."""
        entries = []
        for name, peer in self.peers.items():
            hello = self.versions[name]
            if part not in PEERS[name][3]:
                continue
            if "failed" in hello:
                entries.append(Entry(Row(part, case, peer.name, "", note=f"skipped: {hello['failed']}")))
                continue
            peer.start()
            for route in hello[part]:
                say(f"  {peer.name}: {route}")
                entry = Entry(Row(part, case, peer.name, route))
                entries.append(entry)
                try:
                    answer = peer.ask(PREPARE_S, do=part, route=route, **request)
                except Failed as reason:
                    entry.row.note = f"failed: {reason}"
                    continue
                if part == "attention":
                    judge_error(entry.row, answer)
                entry.turn = lambda peer=peer, route=route: peer.ask(TIME_S, do="time", route=route)["ms"]
        return entries

    def our_attention(self, text: str, products: str, precision: str) -> Entry:
        row = Row("attention", text, OURS, "dense" if products == "native" else f"dense, {products} attention", precision)

        def turn() -> float:
            answer = self.ours.attention(text, products)
            judge_error(row, {"precision": precision, **answer})
            return answer["ms"]

        return Entry(row, turn)

    def attention(self, text: str) -> list[Row]:
        shape = parse_shape(text)
        say(f"attention {text}")
        ours = [self.our_attention(text, "native", "bf16"), self.our_attention(text, "int8", "int8")]
        entries = [*ours, *self.prepare("attention", text, shape=text, threads=self.ours.threads)]
        self.take_turns(entries)
        for entry in entries:
            entry.row.unit = "GFLOP/s" if entry.ms else ""
            entry.row.rate = shape.gflop / entry.row.ms * 1e3
            entry.row.of_peak = entry.row.rate / self.peak
        return self.finish(entries)

    def prefill(self, length: int, methods: list[str]) -> list[Row]:
        text = f"{length} tokens"
        say(f"prefill {text}")
        ids = self.ours.tokens(length)
        truth = self.ours.first_token("dense", ids)
        entries = []
        for method in methods:
            route = method.replace("/", ", ").replace("+attention", " products and attention")
            route += " products" * route.endswith("int8")
            row = Row("prefill", text, OURS, route if method.startswith("dense") else f"sparse, {route}")
            entries.append(Entry(row, lambda method=method: self.ours.prefill(method, length)))
            try:
                row.check = judge_token(self.ours.first_token(method, ids), truth)
            except Failed as reason:  # --attention int8 is not there on every machine
                entries[-1].turn, row.note = None, f"failed: {reason}"
        entries += self.prepare("prefill", text, model=str(self.ours.model), longest=length, threads=self.ours.threads)
        for entry in entries[len(methods) :]:
            if entry.turn:
                entry.turn = self.prefill_turn(entry.row, ids, truth)
        self.take_turns(entries)
        for entry in entries:
            entry.row.unit = "tokens/s" if entry.ms else ""
            entry.row.rate = length / entry.row.ms * 1e3
        return self.finish(entries)

    def prefill_turn(self, row: Row, ids: list[int], truth: int) -> Callable[[], float]:
        peer = next(peer for peer in self.peers.values() if peer.name == row.who)

        def turn() -> float:
            answer = peer.ask(TIME_S, do="time", route=row.route, ids=ids)
            row.check = judge_token(answer["token"], truth)
            return answer["ms"]

        return turn

    def finish(self, entries: list[Entry]) -> list[Row]:
        """Ratios to our first row, fastest first; the peers' memory is given back."""
        for peer in self.peers.values():
            peer.stop()
        for entry in entries:
            if not entry.row.check.startswith("WRONG"):
                entry.row.ours_faster = entry.row.ms / entries[0].row.ms
        return sorted((entry.row for entry in entries), key=lambda row: (math.isnan(row.ms), row.ms))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def join(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def take_turn(entry: Entry, index: int) -> None:
    if not entry.turn:
        return
    time.sleep(PAUSE_S)
    try:
        entry.ms[index] = entry.turn()
    except Failed as reason:
        entry.turn = None
        entry.row.note = join(entry.row.note, f"failed: {reason}")


def drop_slow_routes(entries: list[Entry], index: int) -> None:
    best: dict[str, float] = {}
    for entry in entries:
        if entry.turn and not entry.row.check.startswith("WRONG"):
            best[entry.row.label] = min(best.get(entry.row.label, math.inf), entry.ms[index])
    for entry in entries:
        if entry.turn and entry.row.who != OURS and entry.ms[index] > SLOW_ROUTE * best.get(entry.row.label, math.inf):
            entry.turn = None
            entry.row.note = join(entry.row.note, "few rounds: not this peer's best route")


def judge_error(row: Row, answer: dict) -> None:
    row.precision = answer["precision"]
    good = answer["error"] <= BOUNDS[row.precision]  # not true of NaN
    row.check = f"{'' if good else 'WRONG, '}error {answer['error']:.1e}"


def judge_token(token: int, truth: int) -> str:
    return "same first token" if token == truth else f"another first token ({token}, ours dense {truth})"


def say_hello(name: str, peer: Peer, failures: Path) -> dict:
    """Version and routes; when it does not start, the reason, which is the installer's when there is one."""
    peer.start()
    try:
        hello = peer.ask(PREPARE_S, do="hello")
    except Failed as reason:
        logs = (failures / f"{package}.failed" for package in PEERS[name][2])
        texts = [f"{log.stem} cannot be installed: {log.read_text().strip()}" for log in logs if log.exists()]
        hello = {"failed": join(*texts) or str(reason)}
    peer.stop()
    say(f"{peer.name}: {hello.get('version') or 'skipped, ' + hello['failed']}")
    return hello


def machine() -> str:
    info = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    names = {key.strip(): value.strip() for key, value in info.items()}
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 2**20
    return f"{names.get('model name', 'unknown CPU')}, {os.cpu_count()} CPUs, {memory:.0f} GiB of memory"


def write_all(rows: list[Row], about: list[str], out: Path) -> None:
    write_csv(rows, out / "peers.csv")
    write_markdown(rows, about, out / "peers.md")
    try:
        draw(rows, out / "peers.png")
    except ImportError as error:
        say(f"no chart: {error}")


def read_options() -> argparse.Namespace:
    root = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("attention", "prefill", "all"), default="all")
    parser.add_argument("--shapes", default=SHAPES, help="attention cases, separated by blanks [default: %(default)s]")
    parser.add_argument("--lengths", default="1024,4096,8000", help="prompt lengths of prefill [default: %(default)s]")
    parser.add_argument(
        "--methods",
        default="dense,auto,dense/int8,auto/int8,dense/int8+attention,auto/int8+attention",
        help="ours in prefill, /int8 with integer matrix products, /int8+attention with integer attention, too; ratios are to the "
        "first [default: %(default)s]",
    )
    parser.add_argument("--runs", type=int, default=5, help="rounds; the best counts [default: %(default)s]")
    parser.add_argument("--threads", type=int, default=0, help="threads of everyone; 0 = all [default: %(default)s]")
    parser.add_argument("--peers", default=",".join(PEERS), help="[default: %(default)s]")
    parser.add_argument("--tool", type=Path, default=root / "build/compactattn")
    parser.add_argument("--model", type=Path, default=root / "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--text", type=Path, default=root / "data/demo.txt")
    parser.add_argument("--failures", type=Path, default=root / "build-peers", help="folder with the installer's PACKAGE.failed")
    parser.add_argument("--out", type=Path, default=root / "out/peers", help="folder of the results")
    parser.add_argument("--quick", action="store_true", help="one round of tiny cases: does everything work?")
    options = parser.parse_args()
    if options.quick:
        options.shapes, options.lengths, options.runs = "q256,kv512,h4:2,d64", "256", 1
    options.shapes = options.shapes.split()
    options.lengths = options.lengths.split(",")
    options.peers = options.peers.split(",")
    options.methods = options.methods.split(",")
    options.threads = options.threads or len(os.sched_getaffinity(0))
    for text in options.shapes:
        try:
            parse_shape(text)
        except ValueError as error:
            parser.error(str(error))
    for name in options.peers:
        if name not in PEERS:
            parser.error(f"--peers {name}: known are {', '.join(PEERS)}")
    if not all(length.isdecimal() and int(length) > 1 for length in options.lengths):
        parser.error("--lengths: expected whole numbers from 2 on, separated by commas")
    if options.runs < 1 or options.threads < 1:
        parser.error("--runs and --threads are at least 1")
    return options


def main() -> int:
    options = read_options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # keeps the finished rows, as Ctrl-C does
    options.out.mkdir(parents=True, exist_ok=True)
    ours = Ours(options.tool, options.model, options.text, options.threads)
    try:
        our_version = ours.call("--version").strip()
    except Failed as reason:
        say(f"{OURS}: {reason}")
        return 1
    peers = {name: Peer(PEERS[name][0], PEERS[name][1], options.out / f"{name}.log") for name in options.peers}
    for peer in peers.values():
        peer.log.unlink(missing_ok=True)
    hellos = {name: say_hello(name, peer, options.failures) for name, peer in peers.items()}
    comparison = Comparison(ours, peers, hellos, options.runs)
    rows: list[Row] = []
    code = 0
    try:
        if options.part in ("attention", "all"):
            for text in options.shapes:
                rows += comparison.attention(text)
        if options.part in ("prefill", "all"):
            for length in options.lengths:
                rows += comparison.prefill(int(length), options.methods)
    except KeyboardInterrupt:
        code = 130
    except Failed as reason:
        say(f"{OURS}: {reason}")
        code = 1
    finally:
        for peer in peers.values():
            peer.stop()
    arguments = ["PEERS_ARGS=" + shlex.join(sys.argv[1:])] if sys.argv[1:] else []
    loads = comparison.loads or [math.nan]
    state = f"measured peak {comparison.peak:.0f} GFLOP/s; load {min(loads):.2f} to {max(loads):.2f}"
    about = [
        f"`{shlex.join(['make', 'bench-peers', *arguments])}`",
        f"{machine()}, {options.threads} threads; {state}",
        our_version + "; " + "; ".join(hello["version"] for hello in hellos.values() if "version" in hello),
        f"best of {options.runs} interleaved rounds",
    ]
    if rows:
        for line in about:
            print(line)
        write_text(rows, sys.stdout)
        write_all(rows, about, options.out)
        print(f"{options.out}: peers.csv, peers.md, peers.png")
    return code


if __name__ == "__main__":
    sys.exit(main())
