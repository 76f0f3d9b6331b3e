"""Mutated messages and settings for the parsers, for as long as you like.

`python -m tests.unit.runner.fuzz SECONDS`, or `make fuzz SECONDS=600`. The runner's two parsers are
compiled with sanitizers; the agent's one must answer every line. An input that breaks one is left
in a file, to be put into tests/unit/runner/corpus once it has been understood.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from phalanx_runner.build import SRC
from phalanx_runner.messages import Malformed, parse

HERE = Path(__file__).parent
SAMPLES = sorted((HERE / "corpus").iterdir())
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-fno-sanitize-recover=all"]
FLAGS += ["-fsanitize=address,undefined", f"-I{SRC}"]
ROUNDS = 100_000
ALPHABET = b'{}[]":,\\ \n=0129-aeopstx\t\x00\xff'
LINES = (
    b'{"ev":"hello","proto":1,"kernel":"k","last_seq":3}',
    b'{"ev":"mesh-failed","seq":1,"t":1,"peers":["sub1","sub2"],"ms":60000}',
    b'{"ev":"exited","seq":7,"t":12,"code":137,"signal":9}',
    b'{"ev":"error","seq":7,"t":12,"what":"exec","errno":2,"text":"No such file"}',
)


def compile_fuzz(folder: Path) -> Path:
    """The program that throws mutations at the C parsers."""
    program = folder / "fuzz"
    files = [str(HERE / "parser_fuzz.c"), str(SRC / "command.c"), str(SRC / "conf.c")]
    subprocess.run(["gcc", *FLAGS, "-o", str(program), *files], check=True)
    return program


def throw(program: Path, seed: int) -> subprocess.CompletedProcess[str]:
    """One run; its output is the number of inputs that were accepted."""
    command = [str(program), str(seed), str(ROUNDS), *map(str, SAMPLES)]
    return subprocess.run(
        command, cwd=program.parent, capture_output=True, text=True, timeout=60, check=False
    )


def mutated(line: bytes, dice: random.Random) -> bytes:
    """A line with up to seven bytes replaced, put in, or cut from there on."""
    text = bytearray(line)
    for _ in range(dice.randrange(8)):
        at = dice.randrange(len(text) + 1)
        mark = bytes([dice.choice(ALPHABET)])
        text[at : dice.choice((at, at + 1, len(text)))] = mark
    return bytes(text)


def throw_at_agent(seed: int) -> int:
    """The number of lines that the agent's parser has accepted; it raises for none."""
    dice = random.Random(seed)  # noqa: S311 - no secret, a seed to come back to
    lines = (mutated(dice.choice(LINES), dice) for _ in range(ROUNDS // 10))
    return sum(not isinstance(parse(line), Malformed) for line in lines)


def main() -> int:
    """Fresh seeds until the time is over; 1 at the first that breaks something."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    began = shown = time.monotonic()
    first = seed = int(time.time())
    with tempfile.TemporaryDirectory(prefix="phalanx-fuzz-") as folder:
        program = compile_fuzz(Path(folder))
        while time.monotonic() < began + seconds:
            done = throw(program, seed)
            if done.returncode != 0:
                kept = Path(f"fuzz-{seed}")
                kept.write_bytes((program.parent / "guilty").read_bytes())
                print(f"{done.stderr}\nseed {seed} breaks a parser; its input is in {kept}")
                return 1
            throw_at_agent(seed)
            seed += 1
            if time.monotonic() > shown + 5:
                shown = time.monotonic()
                print(f"[{shown - began:5.0f} s] {seed - first} seeds", flush=True)
    print(f"{seed - first} seeds of {ROUNDS} inputs: nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
