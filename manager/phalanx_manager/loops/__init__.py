"""The loops: woken, they load, decide purely, commit, and ring on."""
