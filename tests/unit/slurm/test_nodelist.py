from __future__ import annotations

import pytest

from phalanx_slurm.nodelist import compress, expand
from phalanx_slurm.wrong import WrongError


@pytest.mark.parametrize(
    ("hosts", "text"),
    [
        (["main1"], "main1"),
        (["main1", "sub1"], "main1,sub1"),
        (["main1", "sub1", "sub2", "sub3"], "main1,sub[1-3]"),
        (["sub1", "sub3", "sub4"], "sub[1,3-4]"),
        (["sub2", "sub1"], "sub[2,1]"),
        (["login", "n9", "n10"], "login,n[9-10]"),
        (["n08", "n09"], "n0[8-9]"),
        ([], ""),
    ],
)
def test_hosts_are_written_as_slurm_writes_them(hosts: list[str], text: str) -> None:
    assert text == compress(hosts)


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("main1,sub[1-3,7]", ("main1", "sub1", "sub2", "sub3", "sub7")),
        ("a b", ("a", "b")),
        ("n[08-10]-ib", ("n08-ib", "n09-ib", "n10-ib")),
        (" ,main1, ", ("main1",)),
        ("", ()),
    ],
)
def test_lists_are_read_as_slurm_reads_them(text: str, hosts: tuple[str, ...]) -> None:
    assert hosts == expand(text)


@pytest.mark.parametrize("text", ["sub[1-", "sub[3-1]", "sub[]", "[a]", "s[1-99999999]", "a[1][2]"])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(WrongError):
        expand(text)
