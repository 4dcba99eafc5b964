"""Several processes that send to each other by gloo: one job, started once, runs many cases."""

import os
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

START = 60.0  # seconds that a start may take on a busy machine
PATIENCE = 180.0  # seconds that a call may take


class Job:
    """Processes 0 to ``world - 1``, each of which runs what the job is called with.

    >>> with job_of(2) as job:
    ...     assert job(os.getppid) == 2 * [os.getppid()]
    """

    def __init__(self, world: int) -> None:
        self.world = world
        self._ranks: list[tuple[Any, Connection]] = []

    def __call__(self, function: Callable[..., Any], *arguments: Any, timeout: float = PATIENCE) -> list[Any]:
        """Run a function of a module in each process; ``torch.distributed.get_rank()`` says there which it is.

        Returns:
            What it gave, by rank: anything that pickles; of tensors plain ones, no DTensors.

        Raises:
            AssertionError: If it raised in a process, with the traceback there, a process died, or time ran out. The
                processes are ended then, since others may wait for one that failed; the next call starts new ones.
        """
        self._start()
        call = pickle.dumps((function, arguments))
        self._send(call)
        return self._answers(timeout)

    def close(self) -> None:
        """Let the processes end together."""
        self._send(pickle.dumps(None))
        for process, _ in self._ranks:
            process.join(10)
        self._kill()

    def _start(self) -> None:
        """Start the processes if they do not run. One whose connections fail is tried again."""
        for last in (False, False, True):
            if self._ranks:
                return
            # Each process is forked from a server that has imported torch: much quicker than a fresh Python, and unlike
            # a fork of this process it takes none of its threads' locks along.
            context = get_context("forkserver")
            context.set_forkserver_preload(["wellposed", "torch.distributed.tensor.parallel", "torch.distributed.fsdp"])
            # A file to meet at, which unlike a port is nobody else's; each group of processes meets there anew.
            self._folder = tempfile.TemporaryDirectory()
            for rank in range(self.world):
                here, there = context.Pipe()
                target = (rank, self.world, str(Path(self._folder.name, "store")), there)
                process = context.Process(target=_serve, args=target, daemon=True)
                process.start()
                there.close()
                self._ranks.append((process, here))
            try:
                self._answers(START)
            except AssertionError:
                if last:
                    raise

    def _send(self, call: bytes) -> None:
        for _, connection in self._ranks:
            with suppress(OSError):  # of a process that died; whoever reads its answer hears of it
                connection.send_bytes(call)

    def _answers(self, timeout: float) -> list[Any]:
        """One answer of each process."""
        until = time.monotonic() + timeout
        found: dict[int, Any] = {}
        ranks: dict[Any, int] = {connection: rank for rank, (_, connection) in enumerate(self._ranks)}
        while len(found) < self.world:
            left = until - time.monotonic()
            ready: list[Any] = wait([c for c, rank in ranks.items() if rank not in found], max(left, 0))
            if not ready:
                self._kill()
                raise AssertionError(f"ranks {sorted({*ranks.values()} - {*found})} were not done in {timeout} s")
            for connection in ready:
                rank = ranks[connection]
                try:
                    is_well, answer = pickle.loads(connection.recv_bytes())
                except (EOFError, OSError):
                    is_well, answer = False, "it died"
                if not is_well:
                    self._kill()
                    raise AssertionError(f"rank {rank} of {self.world}: {answer}")
                found[rank] = answer
        return [found[rank] for rank in range(self.world)]

    def _kill(self) -> None:
        for process, connection in self._ranks:
            process.kill()
            process.join()
            connection.close()
        if self._ranks:
            self._folder.cleanup()
        self._ranks = []


@contextmanager
def job_of(world: int) -> Iterator[Job]:
    """A job of so many processes; they start at its first call.

    As a fixture of a module:

    >>> @pytest.fixture(scope="module")  # doctest: +SKIP
    ... def four() -> Iterator[Job]:
    ...     with job_of(4) as job:
    ...         yield job
    """
    job = Job(world)
    try:
        yield job
    finally:
        job.close()


@cache
def mesh_of(*shape: int, names: tuple[str, ...] | None = None) -> Any:
    """In a process of a job: a mesh of all its processes. Each is made once, since its groups have to connect."""
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh("cpu", shape, mesh_dim_names=names)


def _serve(rank: int, world: int, store: str, connection: Connection) -> None:
    """What each process does: answer calls, until there are no more."""
    torch.set_num_threads(1)
    waiting = timedelta(seconds=PATIENCE)
    dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=world, timeout=waiting)
    dist.barrier()
    connection.send_bytes(pickle.dumps((True, None)))
    while True:
        try:
            call = pickle.loads(connection.recv_bytes())
        except EOFError:  # the one who calls has gone
            os._exit(1)
        except Exception:  # such as a module that cannot be imported here
            connection.send_bytes(pickle.dumps((False, traceback.format_exc())))
            continue
        if call is None:
            break
        function, arguments = call
        try:
            answer = pickle.dumps((True, function(*arguments)))
        except BaseException:
            answer = pickle.dumps((False, traceback.format_exc()))
        connection.send_bytes(answer)
    # At an ordinary exit a thread of gloo's may meet the end of the interpreter, and the process aborts now and then.
    dist.barrier()
    os._exit(0)
