"""Lists of hosts come back as they were written."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from phalanx_slurm.nodelist import compress, expand

HOSTS = st.builds(
    lambda role, number: f"{role}{number}",
    st.sampled_from(["main", "sub", "worker", "a-b", "n0", "x1y"]),
    st.one_of(st.just(""), st.integers(0, 300).map(str), st.just("007")),
)


@given(st.lists(HOSTS, max_size=40))
def test_a_list_that_was_compressed_expands_to_the_same_hosts(hosts: list[str]) -> None:
    assert tuple(hosts) == expand(compress(hosts))


@given(st.integers(1, 500))
def test_a_gang_of_any_size_takes_few_characters(size: int) -> None:
    hosts = ["main1", *(f"sub{number}" for number in range(1, size))]

    assert len(compress(hosts)) <= len("main1,sub[1-499]")
