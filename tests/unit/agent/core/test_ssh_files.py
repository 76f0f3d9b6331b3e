"""Golden texts of what lies in /run/phalanx."""

from __future__ import annotations

from phalanx_agent.core import ssh_files
from phalanx_wire.control import Member
from phalanx_wire.ids import AgentId

HERE = AgentId("host1")
MEMBERS = (
    Member(0, "main1", HERE, "10.213.0.62", "ssh-ed25519 H0", "ssh-ed25519 U0", slots=2),
    Member(1, "sub1", HERE, "10.213.0.61", "ssh-ed25519 H1", "ssh-ed25519 U1", slots=2),
)


def test_hosts_names_the_own_container_first_among_the_sessions() -> None:
    assert """\
127.0.0.1 localhost
::1 localhost ip6-localhost ip6-loopback
10.213.0.61 sub1
10.213.0.62 main1
::ffff:127.0.0.1 localhost
""" == ssh_files.hosts(MEMBERS, 1)


def test_the_hostfile_has_every_container_with_its_slots() -> None:
    assert "main1 slots=2\nsub1 slots=2\n" == ssh_files.hostfile(MEMBERS)


def test_known_hosts_has_every_name_with_and_without_the_port() -> None:
    assert """\
main1,10.213.0.62,[main1]:2200,[10.213.0.62]:2200 ssh-ed25519 H0
sub1,10.213.0.61,[sub1]:2200,[10.213.0.61]:2200 ssh-ed25519 H1
""" == ssh_files.known_hosts(MEMBERS)


def test_everybody_of_the_session_may_come_in() -> None:
    assert "ssh-ed25519 U0\nssh-ed25519 U1\n" == ssh_files.authorized_keys(MEMBERS)


SESSION_HOSTS = """\
Host main1 10.213.0.62 sub1 10.213.0.61
    Port 2200
    User root
    IdentityFile /run/phalanx/ssh/id_ed25519
    IdentitiesOnly yes
    UserKnownHostsFile /run/phalanx/ssh/known_hosts
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    UpdateHostKeys no
    LogLevel ERROR
"""


def test_our_ssh_reads_the_users_own_settings_after_the_sessions() -> None:
    assert SESSION_HOSTS + "Match all\nInclude ~/.ssh/config\n" == ssh_files.ssh_config(
        MEMBERS, "root"
    )


def test_the_images_ssh_gets_no_include_which_it_would_refuse_there() -> None:
    assert SESSION_HOSTS == ssh_files.ssh_dropin(MEMBERS, "root")


def test_who_was_let_in_from_outside_stays_when_the_peers_are_written_again() -> None:
    text = ssh_files.with_guest(ssh_files.authorized_keys(MEMBERS[:1]), "ssh-ed25519 X")

    assert ssh_files.authorized_keys(MEMBERS) + "ssh-ed25519 X guest\n" == (
        ssh_files.authorized_keys(MEMBERS, text)
    )


ON_HOSTS = (
    Member(0, "main1", HERE, "192.0.2.1", "ssh-ed25519 H0", "ssh-ed25519 U0", ssh_port=61000),
    Member(1, "sub1", HERE, "192.0.2.1", "ssh-ed25519 H1", "ssh-ed25519 U1", ssh_port=61002),
    Member(2, "sub2", HERE, "192.0.2.2", "ssh-ed25519 H2", "ssh-ed25519 U2", ssh_port=61000),
)


def test_on_the_hosts_network_each_container_is_known_by_its_port() -> None:
    assert """\
main1,[main1]:61000,[192.0.2.1]:61000 ssh-ed25519 H0
sub1,[sub1]:61002,[192.0.2.1]:61002 ssh-ed25519 H1
sub2,192.0.2.2,[sub2]:61000,[192.0.2.2]:61000 ssh-ed25519 H2
""" == ssh_files.known_hosts(ON_HOSTS)


def test_on_the_hosts_network_ssh_goes_to_each_containers_port() -> None:
    assert """\
Host main1 sub2 192.0.2.2
    Port 61000
Host sub1
    Port 61002
Host main1 sub2 192.0.2.2 sub1
    User root
""" == "".join(ssh_files.ssh_dropin(ON_HOSTS, "root").splitlines(keepends=True)[:6])
