"""For training scripts that use Lightning, in containers of a session.

    requeue = PhalanxRequeue("/shared/run1")
    trainer = Trainer(plugins=[PhalanxEnvironment()], callbacks=[requeue], ...)
    trainer.fit(model, data, ckpt_path=requeue.ckpt_path)

This file needs nothing else of Phalanx: where the image lacks `phalanx`, copy it beside the script
as `phalanx_lightning.py`. It works with `lightning` and with `pytorch_lightning`, whichever of them
the script has imported.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Self  # images have older Pythons

_LOG = logging.getLogger(__name__)
_OURS = "PHALANX_LIGHTNING"
"""Set once the session's own LOCAL_RANK is out of the way: a later one is Lightning's."""
_REQUEUE_S = 60.0
_ENVIRONMENTS = ("lightning.fabric.plugins.environments", "lightning_fabric.plugins.environments")
_CALLBACKS = ("lightning.pytorch", "pytorch_lightning")


class PhalanxEnvironment:
    """A Lightning cluster environment in which each container of the session is a node.

    `Trainer(num_nodes=<containers>, devices=<devices of one container>)`: for more than one device
    Lightning starts the other processes of a container itself; what torchrun has started is left
    as it is. Not to be made outside of a session: see `detect`.
    """

    def __init__(self) -> None:
        if not self.detect():
            raise RuntimeError(
                "this process is in no container of a Phalanx session; "
                "plugins=[PhalanxEnvironment()] if PhalanxEnvironment.detect() else []"
            )
        for parent in _parents(_ENVIRONMENTS, "ClusterEnvironment"):
            parent.register(type(self))
        self._containers = int(os.environ["BACKENDAI_CLUSTER_SIZE"])
        self._container = int(os.environ["BACKENDAI_CLUSTER_LOCAL_RANK"])
        self._world_size, self._global_rank = self._containers, self._container
        if not _by_torchrun() and _OURS not in os.environ:
            os.environ.pop("LOCAL_RANK", None)
            os.environ[_OURS] = "1"

    @staticmethod
    def detect() -> bool:
        """Whether this process is in a container of a session."""
        return "PHALANX_SESSION_ID" in os.environ

    @property
    def creates_processes_externally(self) -> bool:
        """Whether all processes of this container are there already."""
        return "LOCAL_RANK" in os.environ

    @property
    def main_address(self) -> str:
        """The name of main1; it is in every container's /etc/hosts."""
        return os.environ["MASTER_ADDR"]

    @property
    def main_port(self) -> int:
        """A port that is free in main1."""
        return int(os.environ["MASTER_PORT"])

    def world_size(self) -> int:
        """All processes in all containers."""
        return int(os.environ["WORLD_SIZE"]) if _by_torchrun() else self._world_size

    def set_world_size(self, size: int) -> None:
        """Told by Lightning, who alone knows how many devices it uses."""
        self._world_size = size

    def global_rank(self) -> int:
        """The place of this process among all."""
        return int(os.environ["RANK"]) if _by_torchrun() else self._global_rank

    def set_global_rank(self, rank: int) -> None:
        """Told by Lightning; `RANK` follows, for whoever else reads it."""
        self._global_rank = rank
        if not _by_torchrun():
            os.environ["RANK"] = str(rank)

    def local_rank(self) -> int:
        """The place of this process in its container."""
        return int(os.environ.get("LOCAL_RANK", "0"))

    def node_rank(self) -> int:
        """The place of this container in the session."""
        return int(os.environ["GROUP_RANK"]) if _by_torchrun() else self._container

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Refuse what would wait for ever, or share a device.

        Raises:
            ValueError: the trainer's settings are not those of the session.
        """
        if num_nodes != self._containers:
            raise ValueError(
                f"Trainer(num_nodes={num_nodes}, devices={num_devices}): this session has "
                f"{self._containers} containers, and each is a node. Use num_nodes="
                f"{self._containers} and the devices of one container."
            )
        together = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch = sys.modules.get("torch")
        if together == 1 or torch is None or "CUDA_VISIBLE_DEVICES" in os.environ:
            return
        if torch.cuda.device_count() > 1:
            raise ValueError(
                f"{together} containers of this session are on this host and see the devices of "
                "all of them: two would use the same one. Run it with --env-profile node."
            )

    def teardown(self) -> None:
        """Nothing is to be undone."""


class PhalanxRequeue:
    """A Lightning callback: at the warning signal save a checkpoint, then ask for a requeue.

    For sessions with a time limit and `--signal USR1@90`. The signal only sets a mark. After each
    batch the processes agree whether any of them has one, and all save at the same step: a handler
    that saved by itself would wait at the checkpoint's barrier for a process that is in the
    gradients' sum. Training goes on until the session is stopped. The next attempt finds
    `ckpt_path`; the end of the training removes it.

    Args:
        folder: on storage that all containers of all attempts see.
        warned_by: the signal that the session is warned by.
        every_n_batches: how often to agree; each time costs one small reduction.
    """

    def __new__(cls, *_args: Any, **_options: Any) -> Self:
        """Its parents are known only now: a script has imported one Lightning, or the other."""
        whole = type(cls.__name__, (cls, *_parents(_CALLBACKS, "Callback")), {})
        made: Self = object.__new__(whole)
        return made

    def __init__(
        self,
        folder: str,
        *,
        warned_by: signal.Signals = signal.SIGUSR1,
        every_n_batches: int = 1,
    ) -> None:
        self._settings = (folder, warned_by, every_n_batches)
        self._every = every_n_batches
        self._signal = warned_by
        self._before: Any = None
        self._warned = False
        self._asked = False
        name = os.environ.get("PHALANX_SESSION_ID", "no-session")
        self._path = os.path.join(folder, f"phalanx-{name}.ckpt")

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, self._settings  # pickle would look for a class of that name, and find ours

    @property
    def ckpt_path(self) -> str | None:
        """What an earlier attempt of this session has saved; None in the first."""
        return self._path if os.path.exists(self._path) else None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Listen for the signal from here on."""
        del trainer, pl_module
        if stage == "fit":
            self._before = signal.signal(self._signal, self._mark)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Refuse to go on when only some processes have found the checkpoint.

        Raises:
            RuntimeError: processes would train from different steps.
        """
        del pl_module
        first = trainer.strategy.broadcast(trainer.global_step)
        if first != trainer.global_step:
            raise RuntimeError(
                f"rank 0 begins at step {first}, rank {trainer.global_rank} at "
                f"{trainer.global_step}: {os.path.dirname(self._path)} must be storage that all "
                "containers see"
            )

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and ask, all at the same step, once one of them was warned."""
        del pl_module, outputs, batch
        if self._asked or (batch_idx + 1) % self._every:
            return
        if trainer.strategy.reduce_boolean_decision(self._warned, all=False):
            self._asked = True
            for logger in trainer.loggers:
                logger.finalize("finished")
            trainer.save_checkpoint(self._path)
            if trainer.is_global_zero:
                _ask()

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """A training that came to its end leaves nothing to go on from."""
        del pl_module
        if not self._asked and self.ckpt_path:
            trainer.strategy.remove_checkpoint(self._path)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Give the signal back."""
        del trainer, pl_module
        if stage == "fit":
            signal.signal(self._signal, self._before)

    def _mark(self, _number: int, _frame: Any) -> None:
        self._warned = True


def _again(folder: str, warned_by: signal.Signals, every_n_batches: int) -> PhalanxRequeue:
    return PhalanxRequeue(folder, warned_by=warned_by, every_n_batches=every_n_batches)


def _ask() -> None:
    """Ask for the requeue; where that fails the time limit brings it, if the session has one."""
    try:
        done = subprocess.run(
            ["phalanx", "requeue"], capture_output=True, text=True, timeout=_REQUEUE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        _LOG.warning("no requeue could be asked for: %s", error)
        return
    if done.returncode != 0:
        _LOG.warning("the requeue was refused: %s", done.stderr.strip())


def _by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def _parents(homes: tuple[str, ...], name: str) -> tuple[Any, ...]:
    """A class of each Lightning that the script has imported: either has its own.

    Raises:
        RuntimeError: it has imported none.
    """
    found = tuple(getattr(sys.modules[home], name) for home in homes if home in sys.modules)
    if not found:
        raise RuntimeError("import lightning or pytorch_lightning before this is made")
    return found
