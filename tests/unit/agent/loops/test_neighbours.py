"""A session whose hosts do not reach each other ends before anything of it is started."""

from __future__ import annotations

from phalanx_wire.control import Member
from phalanx_wire.ids import AgentId
from phalanx_wire.lifecycle import KernelState as S
from tests.support.agent_life import HERE, assignment, gang, living
from tests.support.fake_host import FakeHost

THERE = AgentId("host2")
ADDRESS = "192.0.2.2"
PAIR = gang(
    2,
    members=(
        Member(0, "main1", HERE, "10.213.0.62", "hk0", "uk0"),
        Member(1, "sub1", THERE, "10.213.0.61", "hk1", "uk1"),
    ),
    hosts={HERE: "192.0.2.1", THERE: ADDRESS},
)


async def test_a_host_that_does_not_answer_ends_it_with_both_names(host: FakeHost) -> None:
    host.hidden = frozenset({ADDRESS})
    async with living(host) as life:
        await life.aim(assignment(S.CREATED), of=PAIR)
        await life.until(lambda: life.state() is S.CREATED)
        await life.aim(assignment(S.READY), of=PAIR)
        await life.until(lambda: life.state() is S.REJECTED)

        assert "hosts-apart" == life.report().cause
        assert "Host host1 gets no answer of host host2 at 192.0.2.2" in life.report().message


async def test_hosts_that_answer_are_tried_once(host: FakeHost) -> None:
    async with living(host) as life:
        await life.aim(assignment(S.READY), of=PAIR)
        await life.until(lambda: host.tried)
        await life.settle()

        assert (ADDRESS,) == host.tried


async def test_a_stop_does_not_wait_for_an_answer(host: FakeHost) -> None:
    host.answers.clear()
    async with living(host) as life:
        await life.aim(assignment(S.READY), of=PAIR)
        await life.until(lambda: host.tried)
        await life.aim(assignment(S.REMOVED), of=PAIR)
        await life.until(lambda: life.state() is S.REMOVED)
