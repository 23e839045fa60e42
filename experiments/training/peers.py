"""Processes of one run that end together: when one dies, the others say so.

JAX ends the others itself, but by an abort or an exception of many lines, and
where they wait for an accelerator only after its heartbeats have been missed.
Here every process holds a connection to the first one, which the kernel closes
in the instant a process dies, and which probes find dead if a machine does.
"""

import contextlib
import os
import select
import socket
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

import jax

from experiments.training.run_checkpoints import Stopped
from gmixout_jax.checkpoint.processes import agreed, leads

_BYE = b"bye"
_CONNECT_SECONDS = 20.0
_DIAGNOSIS_SECONDS = 10.0
_IDLE_SECONDS, _PROBE_SECONDS, _PROBES = 20, 10, 3


def _listening(host: str | None, *, backlog: int) -> socket.socket:
  """A socket on the address that others connect to; on all if it is None."""
  if host is not None:
    with contextlib.suppress(OSError):
      return socket.create_server((host, 0), backlog=backlog)
  return socket.create_server(("", 0), backlog=backlog)


@contextlib.contextmanager
def watched(host: str | None) -> Iterator[None]:
  """Ends this process with a line of error when another one has died.

  To be entered by all processes of `jax.distributed` together. What leaves the
  block by an exception counts as dead for the others.

  Args:
    host: Where the first process is reached; by default its own name.
  """
  if jax.process_count() == 1:
    yield
    return
  if leads():
    server = _listening(host, backlog=jax.process_count())
    address = f"{host or socket.gethostname()}:{server.getsockname()[1]}"
    agreed(address)
    watch = _Leader(server)
  else:
    watch = _Follower(agreed(""))
  thread = threading.Thread(target=watch.run, daemon=True)
  thread.start()
  try:
    yield
  except Stopped:  # all of them, after the same step
    watch.end()
    raise
  except jax.errors.JaxRuntimeError:
    # What another one left behind: who it was is known in a moment.
    thread.join(_DIAGNOSIS_SECONDS)
    raise
  watch.end()


def end(line: str) -> NoReturn:
  """Ends this process with a line of error, and by that all others.

  At once: nothing is waited for any more, as others may be gone.
  """
  sys.stdout.flush()
  os.write(2, f"{line}\n".encode())
  os._exit(1)


class _Leader:
  """The first process, to which all others are connected."""

  def __init__(self, server: socket.socket):
    self._server = server
    self._ranks: dict[socket.socket, int] = {}

  def run(self) -> None:
    """Waits for one of them to disconnect without notice."""
    left = jax.process_count() - 1
    while left:
      ready, _, _ = select.select([self._server, *self._ranks], [], [])
      for one in ready:
        if one is self._server:
          connection, _ = self._server.accept()
          _keep_alive(connection)
          self._ranks[connection] = -1
          continue
        said = _received(one)
        rank = self._ranks[one]
        if rank < 0 and said not in (b"", _BYE):
          self._ranks[one] = int(said)
          one.sendall(b"ok")
          continue
        del self._ranks[one]
        if said == _BYE:
          left -= 1
        elif rank >= 0:
          for other in self._ranks:
            with contextlib.suppress(OSError):
              other.sendall(str(rank).encode())
          _lost(rank)

  def end(self) -> None:
    """The run has ended here."""
    for connection in list(self._ranks):
      with contextlib.suppress(OSError):
        connection.sendall(_BYE)


class _Follower:
  """Any other process."""

  def __init__(self, address: str):
    host, _, port = address.rpartition(":")
    self._ended = False
    self._socket: socket.socket | None = None
    try:
      self._socket = socket.create_connection(
        (host, int(port)), timeout=_CONNECT_SECONDS
      )
      self._socket.sendall(str(jax.process_index()).encode())
      _received(self._socket)
      self._socket.settimeout(None)
      _keep_alive(self._socket)
    except OSError as error:
      self._socket = None
      print(
        f"process {jax.process_index()} cannot watch the others at {address}:"
        f" {error}. If one dies, JAX notices later.",
        file=sys.stderr,
      )

  def run(self) -> None:
    """Waits for the first one to disconnect, or to report who did."""
    if self._socket is None:
      return
    said = _received(self._socket)
    if said != _BYE and not self._ended:
      _lost(int(said) if said.isdigit() else 0)

  def end(self) -> None:
    """The run has ended here."""
    self._ended = True
    if self._socket is not None:
      with contextlib.suppress(OSError):
        self._socket.sendall(_BYE)


def _received(connection: socket.socket) -> bytes:
  """What the other side says; nothing if it is gone."""
  try:
    return connection.recv(64)
  except OSError:
    return b""


def _keep_alive(connection: socket.socket) -> None:
  """Finds out about a machine that vanished, in less than a minute."""
  connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
  for name, value in (
    ("TCP_KEEPIDLE", _IDLE_SECONDS),
    ("TCP_KEEPINTVL", _PROBE_SECONDS),
    ("TCP_KEEPCNT", _PROBES),
  ):
    if hasattr(socket, name):  # not everywhere
      option = getattr(socket, name)
      connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _lost(rank: int) -> NoReturn:
  end(
    f"error: process {rank} of {jax.process_count()} has ended before the run;"
    " started again, all go on from the last checkpoint, if there is one."
  )
