"""`phalanx lab`: a whole cluster on one Linux machine."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import get_args

from phalanx_lab import client_config, engine_root, fitness, lab, plan, recipes, supervise
from phalanx_lab.lab import Fault, Lab
from phalanx_lab.unavailable import Unavailable
from phalanx_lab.wish import Options, wish

USAGE, UNFIT, FORBIDDEN = 64, 69, 77
UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def size(text: str) -> int:
    """Bytes from `4GiB`, `512m`, `1073741824`."""
    number = text.strip().lower().removesuffix("ib").removesuffix("b")
    unit = number[-1:] if number[-1:] in "kmgt" else ""
    try:
        value = int(float(number.removesuffix(unit)) * UNITS[unit])
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 4GiB") from None
    if value < 16 * 2**20:
        raise argparse.ArgumentTypeError(f"{text} is less than 16MiB")
    return value


def options(args: argparse.Namespace) -> Options:
    """What the command line asks of a lab."""
    return {
        "cpu": args.cpus,
        "mem": args.mem,
        "engines_only": args.engines_only,
        "engine_root": args.engine_root,
        "nat": tuple(args.nat),
        "bare": tuple(args.bare),
        "mounts": tuple(args.mount),
    }


def up(args: argparse.Namespace) -> int:
    """Bring a lab up and say what to do next."""
    began = time.monotonic()
    running = Lab.up(args.name, args.nodes, say, **options(args))
    took = time.monotonic() - began
    hosts = running.hosts
    print(f"lab {args.name}: {len(hosts)} hosts up in {took:.1f} s")
    for host in hosts:
        print(f"  {host.name}  {host.address}  docker -H unix://{host.engine_socket}")
    if not running.plan.engines_only:
        print(f"manager at {running.url}; its address and a token are in {client_config.path()}")
        print("next:  phalanx nodes")
    flag = "" if args.name == "default" else f" --name {args.name}"
    print(f"       phalanx lab load IMAGE{flag}")
    print(f"       phalanx lab down{flag}")
    return 0


def down(args: argparse.Namespace) -> int:
    """Remove a lab and all its traces."""
    lab.down(args.name)
    print(f"lab {args.name} is gone")
    return 0


def ls(_args: argparse.Namespace) -> int:
    """List the machine's labs."""
    print(f"{'NAME':13}{'STATE':11}{'HOSTS':7}{'NETWORK':17}URL")
    for found in lab.all_labs():
        url = "-" if found.plan.engines_only else found.url
        print(
            f"{found.plan.name:13}{found.phase():11}{found.plan.nodes:<7}{found.plan.network!s:17}{url}"
        )
    return 0


def load(args: argparse.Namespace) -> int:
    """Load an image into every engine: a recipe, a tar file, NAME=FILE, or one of this machine."""
    ref = Lab.attach(args.name).load(args.image, report=say)
    print(ref)
    return 0


def image(args: argparse.Namespace) -> int:
    """Build an image, or a folder to mount, into the cache."""
    if args.recipe == recipes.SITE_ML:
        print(recipes.site_ml(say))
    elif args.recipe == recipes.SITE_MORE:
        print(recipes.site_more(say))
    else:
        built = recipes.image(args.recipe, say)
        print(f"{built.ref}  {built.id}  {built.size / 1e6:.0f} MB")
    return 0


def make_engine_root(args: argparse.Namespace) -> int:
    """Install another Debian's Docker into a folder for `up --engine-root`."""
    print(engine_root.build(args.suite, say))
    return 0


def say(line: str) -> None:
    """One line of progress."""
    print(line, file=sys.stderr, flush=True)


def fault(args: argparse.Namespace) -> int:
    """Hurt a component or a host."""
    Lab.attach(args.name).fault(args.action, args.target)
    return 0


def logs(args: argparse.Namespace) -> int:
    """Show logs, all components' or one's."""
    found = Lab.remembered(args.name)
    files = [found.plan.log(args.component)] if args.component else found.logs()
    missing = [path for path in files if not os.path.exists(path)]
    if missing:
        raise ValueError(f"no log {missing[0]}")
    flags = ["-F"] if args.follow else []
    return subprocess.call(["tail", "-n", str(args.tail), *flags, *files])


def doctor(args: argparse.Namespace) -> int:
    """Say whether this machine can carry a lab."""
    misses = fitness.misses(wish(args.name, args.nodes, **options(args)))
    print("\n".join(misses) or "this machine can carry a lab")
    return UNFIT if misses else 0


def run_supervisor(args: argparse.Namespace) -> int:
    """Be a lab's background process."""
    if os.fork() > 0:
        os._exit(0)
    os.setsid()
    return supervise.supervise(plan.run_root(), plan.check_name(args.name))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="phalanx lab", description=__doc__)
    verbs = top.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=run.__doc__, description=run.__doc__)
        made.set_defaults(run=run)
        if name not in ("ls", "supervise", "image", "engine-root"):
            made.add_argument("--name", default="default", metavar="LAB")
        return made

    for name, run in (("up", up), ("doctor", doctor)):
        made = verb(name, run)
        made.add_argument("--nodes", type=int, default=2, metavar="N")
        made.add_argument("--cpus", type=int, default=0, metavar="C")
        made.add_argument("--mem", type=size, default=0, metavar="M")
        made.add_argument("--engines-only", action="store_true", help="no manager, no agents")
        made.add_argument(
            "--engine-root", default="", metavar="DIR", help="a Debian to take engines from"
        )
        made.add_argument("--nat", action="append", default=[], metavar="HOST",
                          help="a host behind a router: it reaches others, nobody it")  # fmt: skip
        made.add_argument("--bare", action="append", default=[], metavar="HOST",
                          help="a host with an engine and no agent")  # fmt: skip
        made.add_argument("--mount", action="append", default=[], metavar="DIR[:rw]",
                          help="a folder that sessions may mount")  # fmt: skip
    verb("down", down)
    verb("ls", ls)
    verb("supervise", run_supervisor).add_argument("name")
    verb("load", load).add_argument("image", metavar="IMAGE")
    made = verb("image", image)
    made.add_argument("recipe", choices=(*recipes.NAMES, recipes.SITE_ML, recipes.SITE_MORE))
    made = verb("engine-root", make_engine_root)
    made.add_argument("suite", nargs="?", default=engine_root.SUITE)
    made = verb("fault", fault)
    made.add_argument("action", choices=get_args(Fault))
    made.add_argument("target", metavar="COMPONENT|HOST|HOST:HOST")
    made = verb("logs", logs)
    made.add_argument("component", nargs="?", metavar="COMPONENT")
    made.add_argument("-f", "--follow", action="store_true")
    made.add_argument("-n", "--tail", type=int, default=50)
    return top


def main() -> int:
    """Run one verb; the exit code."""
    args = parser().parse_args()
    try:
        code: int = args.run(args)
    except ValueError as wrong:
        print(f"phalanx lab: {wrong}", file=sys.stderr)
        return USAGE
    except Unavailable as trouble:
        print(f"phalanx lab: {trouble}", file=sys.stderr)
        return UNFIT
    except PermissionError as refused:
        print(f"phalanx lab: {refused.filename}: {fitness.NEEDS_ROOT}", file=sys.stderr)
        return FORBIDDEN
    except BrokenPipeError:
        return 141
    except KeyboardInterrupt:
        return 130
    return code


if __name__ == "__main__":
    sys.exit(main())
