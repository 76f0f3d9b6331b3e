"""The bytes between manager and agent: a change of the wire shows as a change of a file.

`python -m tests.golden.test_messages` writes the file anew; do that together with `PROTOCOL`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from phalanx_wire import codec, stream
from phalanx_wire.control import (
    PROTOCOL,
    Assignment,
    Beat,
    Engine,
    Enrol,
    Enrolled,
    Gang,
    Goals,
    Gpu,
    Heard,
    Hello,
    KernelReport,
    Member,
    Message,
    Network,
    NetworkGoal,
    NetworkReport,
    Observed,
    Refused,
    Stray,
    SwarmGoal,
    SwarmReport,
    Welcome,
)
from phalanx_wire.ids import AgentId, ClusterName, KernelId, SessionId
from phalanx_wire.lifecycle import KernelState
from phalanx_wire.slots import Slots
from phalanx_wire.spec import Mount

FILE = Path(__file__).with_name("messages.json")
HOST = AgentId("host1")
SESSION = SessionId("abcdefghijkl")
KERNEL = KernelId("abcdefghijkl-1-0")
NETWORK = Network("phx-abcdefghijkl-1", "overlay", "10.213.0.0/26", HOST, "net1")
SLOTS = Slots(1500, 1 << 31, 1, 4096)

SAMPLES: tuple[Message, ...] = (
    Enrol(PROTOCOL, HOST, "k" * 40),
    Enrolled(HOST, "cluster1"),
    Hello(PROTOCOL, "0.1.0", HOST, "incarnation1"),
    Welcome("cluster1", ClusterName("default"), 5.0, "10.212.0.0/20"),
    Refused("protocol_version", "This manager speaks version 1."),
    Beat(3),
    Heard(3),
    Goals(
        revision=7,
        gangs=(
            Gang(
                SESSION,
                "calm-otter",
                1,
                NETWORK,
                egress=True,
                members=(
                    Member(0, "main1", HOST, "10.213.0.62", "ssh-ed25519 A", "ssh-ed25519 B"),
                ),
                hosts={HOST: "10.0.0.1"},
            ),
        ),
        kernels=(
            Assignment(
                kernel=KERNEL,
                goal=KernelState.READY,
                host_name="main1",
                image="python:3.12",
                command=("python3", "train.py"),
                idle=False,
                env={"RANK": "0"},
                workdir="/workspace",
                user="1000:1000",
                mounts=(Mount("/data", "/data"),),
                slots=SLOTS,
                shm_bytes=1 << 30,
                gpus=("GPU-1",),
                upload=f"sha256:{'0' * 64}",
                grace_s=10.0,
                master_port=12345,
            ),
        ),
        networks=(NetworkGoal(SESSION, 1, NETWORK, present=True),),
        swarm=SwarmGoal("join", "SWMTKN", ("10.0.0.1:2377",), canary=True),
        guarded=("10.0.0.1", "10.0.0.254"),
    ),
    Observed(
        boot_id="boot1",
        revision=7,
        capacity=SLOTS,
        address="10.0.0.1",
        engine=Engine("20.10.24", "1.41", ""),
        gpus=(Gpu("GPU-1", "h200"),),
        kernels=(
            KernelReport(
                KERNEL,
                KernelState.EXITED,
                cause="oom",
                message="It used more than its 2 GiB of memory.",
                exit_code=137,
                container_id="c" * 64,
                folders={"/ckpt": "boot1:2049:7"},
            ),
        ),
        networks=(NetworkReport(NETWORK.name, "net1"),),
        strays=(Stray("container", "phx-zzzzzzzzzzzz-1-main1"),),
        swarm=SwarmReport("active", "swarm1", "node1", control=True, address="10.0.0.1"),
        subnets=("10.0.0.0/24",),
        warnings=("memlock is limited",),
        number=3,
    ),
    stream.Open(2, stream.ExecCall(KERNEL, ("true",), tty=True)),
    stream.Open(4, stream.LogsCall(KERNEL, follow=True, since_ns=1, tail=10)),
    stream.Open(6, stream.ReadCall(KERNEL, "/etc/hosts")),
    stream.Open(8, stream.WriteCall(KERNEL, "/tmp")),
    stream.Open(10, stream.SignalCall(KERNEL, 10)),
    stream.Open(11, stream.UploadCall(f"sha256:{'0' * 64}")),
    stream.Open(12, stream.ConnectCall(KERNEL, 8888, "ssh-ed25519 A")),
    stream.Open(14, stream.LookCall(KERNEL, (1, 2))),
    stream.Open(13, stream.AskCall(KERNEL, ("phalanx", "requeue"), "/tmp", {"A": "b"})),
    stream.Data(2, stream.STDOUT, b"hello"),
    stream.Eof(2),
    stream.Resize(2, 24, 80),
    stream.Credit(2, 65536),
    stream.Closed(2, exit_code=3, code="", why=""),
)


def name_of(message: Message) -> str:
    """Tell samples apart: calls have a name of their own."""
    if isinstance(message, stream.Open):
        return f"Open({type(message.call).__name__})"
    return type(message).__name__


@pytest.mark.parametrize("message", SAMPLES, ids=name_of)
def test_a_message_has_the_bytes_that_it_had(message: Message) -> None:
    stored = json.loads(FILE.read_text())

    assert stored[name_of(message)] == codec.encode(message).hex()


@pytest.mark.parametrize("message", SAMPLES, ids=name_of)
def test_a_message_comes_back_from_its_bytes(message: Message) -> None:
    assert message == codec.decode(codec.encode(message))


def test_every_message_has_a_sample() -> None:
    assert {kind.__name__ for kind in get_args(codec.AnyMessage)} == {
        type(message).__name__ for message in SAMPLES
    }
    assert {kind.__name__ for kind in get_args(stream.Call)} == {
        type(message.call).__name__ for message in SAMPLES if isinstance(message, stream.Open)
    }


if __name__ == "__main__":
    FILE.write_text(
        json.dumps({name_of(m): codec.encode(m).hex() for m in SAMPLES}, indent=1) + "\n"
    )
