"""Join the group by `env://`, add up ranks, take one step of DDP; print what was found as JSON."""

from __future__ import annotations

import ipaddress
import json
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

ESTABLISHED = "01"


def main() -> None:
    began = time.monotonic()
    dist.init_process_group("gloo")
    joined = time.monotonic() - began
    rank = dist.get_rank()
    total = torch.tensor([float(rank + 1)])
    dist.all_reduce(total)

    torch.manual_seed(rank)  # DDP must make the ranks equal, not their seeds
    model = DistributedDataParallel(torch.nn.Linear(3, 1))
    model(torch.full((2, 3), float(rank))).sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    mine = [value for weight in model.parameters() for value in weight.flatten().tolist()]
    everyone: list[list[float] | None] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, mine)

    found = {
        "rank": rank,
        "world": dist.get_world_size(),
        "sum": total.item(),
        "equal": all(mine == other for other in everyone),
        "joined_s": joined,
        "peers": sorted(peers()),
        "subnet": os.environ["PHALANX_SUBNET"],
    }
    dist.barrier()
    print(json.dumps(found), flush=True)
    dist.barrier()
    dist.destroy_process_group()


def peers() -> set[str]:
    """Addresses at the other end of all established connections of this container."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == ESTABLISHED:
                found.add(str(address(fields[2].partition(":")[0])))
    return found


def address(spelt: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Read an address as the kernel spells it: words of 32 bits in the host's order."""
    words = [spelt[start : start + 8] for start in range(0, len(spelt), 8)]
    raw = b"".join(bytes.fromhex(word)[::-1] for word in words)
    if len(raw) == 4:
        return ipaddress.IPv4Address(raw)
    long = ipaddress.IPv6Address(raw)
    return long.ipv4_mapped or long


main()
