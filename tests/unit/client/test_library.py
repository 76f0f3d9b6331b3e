from __future__ import annotations

import sys

import pytest

import phalanx_client
from phalanx_client.blocking import BlockingClient
from phalanx_client.session import Client


def test_the_library_is_found_where_its_users_look() -> None:
    assert Client is phalanx_client.Client
    assert BlockingClient is phalanx_client.BlockingClient
    assert phalanx_client.connect.__module__ == "phalanx_client.connect"


def test_a_name_that_the_library_does_not_have_is_an_ordinary_mistake() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Clinet'"):
        _ = phalanx_client.Clinet
    assert "phalanx_client" in sys.modules
