"""What PID 1 does, told by its events and its exit code."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from phalanx_runner import messages
from phalanx_runner.channel import RunnerChannel
from phalanx_runner.conf import RunnerConf
from phalanx_runner.messages import (
    Boot,
    Bye,
    Event,
    Exited,
    Hello,
    MeshFailed,
    MeshOk,
    Pong,
    Ready,
    RunnerError,
    Signalled,
    Started,
    Warned,
)
from tests.unit.runner.box import PATIENCE_S, Box, Boxes, only_child

CONF = RunnerConf("k1", grace_s=5)
# A shell that tells by a file that it is ready for a signal, then waits for it.
READY_THEN_WAIT = 'echo there >"$READY"; while :; do sleep 0.02; done'


async def start(box: Box) -> Started:
    await box.wait(Ready)
    box.send(messages.start())
    return await box.wait(Started)


async def test_a_command_runs_after_the_mesh_check_and_its_code_is_the_containers(
    boxes: Boxes,
) -> None:
    conf = RunnerConf("k1", address="127.0.0.1", interface="lo", peers=("main1", "sub1"), grace_s=5)
    async with boxes.open(conf, "sh", "-c", "exit 7") as box:
        assert Hello(1, "k1", 0) == await box.wait(Hello)
        boot = await box.wait(Boot)
        assert 2200 == (await box.wait(Ready)).port
        box.send(messages.mesh())
        await box.wait(MeshOk)
        box.send(messages.start())
        await box.wait(Started)
        exited = await box.wait(Exited)
        box.send(messages.exit())
        bye = await box.wait(Bye)

        assert (1, 1) == (boot.pid, boot.stamp.seq)
        assert (7, 0) == (exited.code, exited.signal)
        assert 7 == bye.code
        assert 7 == await box.code()
        assert [] == [e for e in box.seen if isinstance(e, Warned | RunnerError)]


@pytest.mark.parametrize(
    ("command", "code", "number"),
    [
        (("/no/such/program",), 127, 0),
        (("no-such-program",), 127, 0),
        (("/etc",), 126, 0),
        (("sh", "-c", "kill -SEGV $$"), 139, 11),
        (("sh", "-c", "kill -9 $$"), 137, 9),
        (("true",), 0, 0),
    ],
)
async def test_an_end_has_the_code_that_a_shell_would_tell(
    boxes: Boxes, command: tuple[str, ...], code: int, number: int
) -> None:
    async with boxes.open(RunnerConf("k1", linger_s=0), *command) as box:
        await start(box)
        exited = await box.wait(Exited)

        assert (code, number) == (exited.code, exited.signal)
        assert code == await box.code()


async def test_a_command_that_cannot_be_executed_says_why(boxes: Boxes) -> None:
    async with boxes.open(RunnerConf("k1", linger_s=0), "/no/such/program") as box:
        await start(box)
        error = await box.wait(RunnerError)

        assert "exec" == error.what
        assert {"errno": 2, "text": "No such file or directory"} == dict(error.detail)
        assert 127 == await box.code()
        assert "phalanx-init: /no/such/program: No such file" in await box.output()


async def test_a_command_runs_in_the_folder_that_the_engine_has_chosen(boxes: Boxes) -> None:
    async with boxes.open(RunnerConf("k1", linger_s=0), "pwd", before="cd /usr/bin") as box:
        await start(box)

        assert 0 == await box.code()
        assert "/usr/bin\n" == await box.output()


async def test_stop_gives_the_command_its_grace_and_then_kills_everything(boxes: Boxes) -> None:
    script = f"trap '' TERM; {READY_THEN_WAIT}"
    async with boxes.open(CONF, "sh", "-c", script, env={"READY": "/run/phalanx/ready"}) as box:
        await start(box)
        await appears(box.material / "ready")
        box.send(messages.stop(signal.SIGTERM, 200))
        exited = await box.wait(Exited)

        assert (137, 9) == (exited.code, exited.signal)
        assert 137 == await box.code()


async def test_a_stopped_command_may_end_with_its_own_code_without_lingering(boxes: Boxes) -> None:
    script = f"trap 'exit 3' USR1; {READY_THEN_WAIT}"
    async with boxes.open(CONF, "sh", "-c", script, env={"READY": "/run/phalanx/ready"}) as box:
        await start(box)
        await appears(box.material / "ready")
        box.send(messages.stop(signal.SIGUSR1, 10_000))

        assert 3 == (await box.wait(Exited)).code
        assert 3 == await box.code()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGHUP, 34, 37])
async def test_a_signal_to_pid_1_reaches_the_command(boxes: Boxes, number: int) -> None:
    script = f"trap 'exit 42' {int(number)}; {READY_THEN_WAIT}"
    conf = RunnerConf("k1", linger_s=0)
    async with boxes.open(conf, "sh", "-c", script, env={"READY": "/run/phalanx/ready"}) as box:
        await start(box)
        await appears(box.material / "ready")
        box.kill(number)

        assert 42 == await box.code()


async def test_the_agent_can_send_the_command_a_signal(boxes: Boxes) -> None:
    script = f"trap 'exit 42' USR1; {READY_THEN_WAIT}"
    conf = RunnerConf("k1", linger_s=0)
    async with boxes.open(conf, "sh", "-c", script, env={"READY": "/run/phalanx/ready"}) as box:
        await start(box)
        await appears(box.material / "ready")
        box.send(messages.signal(signal.SIGUSR1))
        told = await box.wait(Signalled)

        assert (10, 1) == (told.signal, told.count)
        assert 42 == await box.code()


async def test_a_lingering_container_ends_on_term_with_the_commands_code(boxes: Boxes) -> None:
    async with boxes.open(RunnerConf("k1", linger_s=3600), "sh", "-c", "exit 5") as box:
        await start(box)
        await box.wait(Exited)
        box.kill(signal.SIGTERM)

        assert 5 == await box.code()


async def test_an_idle_container_starts_nothing_and_ends_when_stopped(boxes: Boxes) -> None:
    async with boxes.open(CONF) as box:
        started = await start(box)
        box.send(messages.signal(signal.SIGUSR1))
        told = await box.wait(Signalled)
        box.send(messages.stop(signal.SIGTERM, 1000))

        assert 0 == started.pid
        assert 0 == told.count
        assert 0 == await box.code()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGRTMIN + 3])
async def test_an_idle_container_ends_on_a_stop_signal(boxes: Boxes, number: int) -> None:
    async with boxes.open(CONF) as box:
        await box.wait(Ready)
        box.kill(number)

        assert 128 + number == await box.code()


async def test_a_later_stop_may_shorten_the_grace(boxes: Boxes) -> None:
    conf = RunnerConf("k1", grace_s=3600)
    stubborn = "(trap '' TERM; echo there >/run/phalanx/ready; while :; do sleep 0.02; done) &"
    async with boxes.open(conf, before=stubborn) as box:
        await box.wait(Ready)
        await appears(box.material / "ready")
        box.send(messages.stop(signal.SIGTERM, 3_600_000))
        box.send(messages.mesh())
        box.send(messages.stop(signal.SIGTERM, 0))

        assert 0 == await box.code()


async def test_a_second_start_is_ignored(boxes: Boxes) -> None:
    async with boxes.open(RunnerConf("k1", linger_s=0), "sh", "-c", "exit 4") as box:
        await start(box)
        box.channel.send(messages.start())

        assert 4 == await box.code()
        await box.wait(Bye)
        assert 1 == len([e for e in box.seen if isinstance(e, Started)])


async def test_two_hundred_orphans_leave_no_zombie(boxes: Boxes) -> None:
    script = """
        i=0; while [ $i -lt 200 ]; do (true & ); i=$((i+1)); done
        while grep -qs "^State:.Z" /proc/[0-9]*/status; do sleep 0.02; done
        exit 6
    """
    async with boxes.open(RunnerConf("k1", linger_s=0), "sh", "-c", script) as box:
        await start(box)

        assert 6 == await box.code()


async def test_processes_left_behind_do_not_hold_up_the_end(boxes: Boxes) -> None:
    script = "setsid sleep 3600 & exit 5"
    async with boxes.open(RunnerConf("k1", linger_s=0), "sh", "-c", script) as box:
        await start(box)

        assert 5 == await box.code()


async def test_the_users_kill_of_everything_spares_the_runner(boxes: Boxes) -> None:
    script = "sleep 3600 & kill -9 -1; exit 3"  # Linux spares the caller, too
    async with boxes.open(RunnerConf("k1", linger_s=0), "sh", "-c", script) as box:
        await start(box)

        assert 3 == (await box.wait(Exited)).code
        assert 3 == await box.code()


async def test_a_restarted_agent_hears_everything_again(boxes: Boxes) -> None:
    async with boxes.open(RunnerConf("k1", linger_s=3600), "sh", "-c", "exit 7") as box:
        await start(box)
        again: list[Event] = []
        async with RunnerChannel.listen(box.material, lambda: box.pid, again.append) as channel:
            drop(box.channel)
            await until(lambda: any(isinstance(e, Exited) for e in again))
            assert channel.send(messages.exit())

            assert 7 == await box.code()
        assert [Hello, Boot, Ready, Started, Exited] == [type(e) for e in again[:5]]


async def test_a_runner_without_an_agent_keeps_its_events_until_one_listens(boxes: Boxes) -> None:
    async with boxes.open(CONF, before="mv /run/phalanx/agent.sock /run/phalanx/away") as box:
        await appears(box.material / "away")
        (box.material / "away").rename(box.material / "agent.sock")

        assert "k1" == (await box.wait(Hello)).kernel
        assert 1 == (await box.wait(Boot)).stamp.seq


async def test_unreachable_peers_are_named(boxes: Boxes) -> None:
    conf = RunnerConf("k1", peers=("main1", "sub1:2300", "nobody"), mesh_timeout_s=1)
    async with boxes.open(conf) as box:
        await box.wait(Ready)
        box.send(messages.mesh())
        failed = await box.wait(MeshFailed)
        (box.material / "hosts").write_text("127.0.0.1 main1 nobody\n")
        box.send(messages.mesh())
        again = await box.wait(MeshFailed)

        assert ("sub1", "nobody") == failed.peers
        assert ("sub1",) == again.peers


async def test_a_mesh_check_that_is_killed_has_reached_nobody(boxes: Boxes) -> None:
    conf = RunnerConf("k1", peers=("main1", "nobody"))
    async with boxes.open(conf) as box:
        await box.wait(Ready)
        box.send(messages.mesh())
        runner = box.pid
        assert runner is not None
        await until(lambda: only_child(runner) is not None)
        checker = only_child(runner)
        assert checker is not None
        os.kill(checker, signal.SIGKILL)

        assert ("main1", "nobody") == (await box.wait(MeshFailed)).peers


async def test_an_address_on_the_wrong_interface_is_refused(boxes: Boxes) -> None:
    conf = RunnerConf("k1", address="10.213.0.62", interface="lo")
    async with boxes.open(conf, "true") as box:
        assert "interface" == (await box.wait(RunnerError)).what
        box.send(messages.exit())
        assert 125 == (await box.wait(Bye)).code
        assert 125 == await box.code()


async def test_a_taken_ssh_port_is_refused(boxes: Boxes) -> None:
    listening = (
        'python3 -c \'import os,signal,socket; s=socket.create_server(("",2200));'
        " os._exit(0) if os.fork() else signal.pause()'"
    )
    async with boxes.open(CONF, before=listening) as box:
        error = await box.wait(RunnerError)
        box.send(messages.exit())

        assert ("ssh-port", 2200) == (error.what, error.detail["number"])
        assert 125 == await box.code()


async def test_a_taken_master_port_is_told_and_the_command_runs(boxes: Boxes) -> None:
    conf = RunnerConf("k1", master_port=2200, linger_s=0)
    async with boxes.open(conf, "sh", "-c", "exit 8") as box:
        await start(box)

        assert 8 == await box.code()
        (warned,) = [e for e in box.seen if isinstance(e, Warned)]
        assert ("master-port", {"port": 2200}) == (warned.what, dict(warned.detail))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("kernel=k1\nssh_port=0\n", "ssh_port"),
        ("kernel=k1\nssh_port=22x\n", "ssh_port"),
        ("kernel=k1\npeers=a,,b\n", "peers"),
        ("kernel=k1\npeers=a:x\n", "peers"),
        ("kernel=k1\nssh_limit=1025\n", "ssh_limit"),
        ("kernel=k1\nnonsense\n", "line"),
        ("ssh_port=2200\n", "kernel"),
        ("kernel=k1\n", "ssh_port"),
    ],
)
async def test_a_wrong_setting_is_refused_by_name(boxes: Boxes, text: str, key: str) -> None:
    async with boxes.open(text, "true") as box:
        error = await box.wait(RunnerError)
        box.send(messages.exit())

        assert ("conf", key) == (error.what, error.detail["detail"])
        assert 125 == await box.code()


async def test_garbage_from_the_agent_is_told_and_skipped(boxes: Boxes) -> None:
    async with boxes.open(CONF) as box:
        await box.wait(Ready)
        box.send(b'{"op":"start"\n{"op":7}\n[]\n{"op":"signal"}\n')
        whats = [(await box.wait(Warned)).what for _ in range(4)]
        box.send(b'{"op":"ping"}\n')
        await box.wait(Pong)

        assert ["command"] * 4 == whats


async def test_an_agent_that_sends_an_endless_line_is_left_and_called_again(boxes: Boxes) -> None:
    async with boxes.open(CONF) as box:
        await box.wait(Ready)
        box.send(b"x" * 9000)

        assert "k1" == (await box.wait(Hello)).kernel
        box.send(messages.ping())
        await box.wait(Pong)


async def test_user_code_cannot_speak_as_the_runner(boxes: Boxes) -> None:
    spoof = (
        "import socket; s=socket.socket(socket.AF_UNIX); s.connect('/run/phalanx/agent.sock');"
        ' s.sendall(b\'{"ev":"exited","seq":99,"t":1,"code":0,"signal":0}\\n\'); s.recv(1)'
    )
    async with boxes.open(RunnerConf("k1", linger_s=0), "python3", "-c", spoof) as box:
        await start(box)
        exited = await box.wait(Exited)

        assert 99 != exited.stamp.seq
        assert 1 == box.channel.tally.strangers


async def test_the_commands_environment_is_the_containers(boxes: Boxes) -> None:
    odd = "a b\"c'd$x\\n"
    env = {"HOME": "/no/such/home", "RANK": "1", "ODD": odd}
    async with boxes.open(RunnerConf("k1", linger_s=0), "env", "-0", env=env) as box:
        await start(box)
        await box.code()
        seen = dict(line.split("=", 1) for line in (await box.output()).split("\0") if line)

        assert "/tmp" == seen["HOME"]
        assert ("1", odd) == (seen["RANK"], seen["ODD"])
        assert [] == [name for name in seen if name.startswith(("PHALANX", "KR"))]


async def test_solo_hides_the_rendezvous_and_nothing_else(boxes: Boxes) -> None:
    names = ["RANK", "WORLD_SIZE", "MASTER_PORT", "TF_CONFIG", "PET_NNODES", "RANKS", "BACKENDAI_X"]
    solo = ("/opt/phalanx/bin/phalanx-solo", "env")
    env = dict.fromkeys(names, "1")
    async with boxes.open(RunnerConf("k1", linger_s=0), *solo, env=env) as box:
        await start(box)
        await box.code()
        seen = {line.split("=")[0] for line in (await box.output()).splitlines()}

        assert {"RANKS", "BACKENDAI_X"} == seen & set(names)


def drop(channel: RunnerChannel) -> None:
    """What the runner sees of an agent that dies."""
    assert channel._current is not None
    channel._current.close()


async def appears(path: Path) -> None:
    await until(path.exists)


async def until(condition: Callable[[], bool]) -> None:
    """Polls what nobody announces, with a bound."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - a file or a process tells nobody
            await asyncio.sleep(0.01)
