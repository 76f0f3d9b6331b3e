from __future__ import annotations

import pytest

import phalanx_client
from phalanx_client import connection
from phalanx_client.blocking import BlockingClient
from phalanx_client.session import Client


def test_the_library_is_found_where_its_users_look_whatever_was_imported_before() -> None:
    assert Client is phalanx_client.Client
    assert BlockingClient is phalanx_client.BlockingClient
    assert connection.connect is phalanx_client.connect
    assert connection.connect_blocking is phalanx_client.connect_blocking


def test_a_name_that_the_library_does_not_have_is_an_ordinary_mistake() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Clinet'"):
        _ = phalanx_client.Clinet
