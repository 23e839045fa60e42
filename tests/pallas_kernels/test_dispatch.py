"""Tests the choice of implementations on a machine without a GPU."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from pallas_kernels import dispatch
from pallas_kernels.masked_mix.api import masked_mix
from pallas_kernels.pack.api import pack
from pallas_kernels.packed_step.api import init, packed_step

on_cpu = pytest.mark.skipif(
  jax.default_backend() != "cpu", reason="says what a CPU cannot run"
)


@on_cpu
@pytest.mark.parametrize(
  ("name", "reason"), [("mosaic_gpu", "Hopper"), ("triton", "Ampere")]
)
def test_what_cannot_run_says_why(name, reason):
  dense, key = jnp.zeros((4, 40)), jax.random.key(0)
  packed = jnp.zeros((4, 4))
  calls = [
    lambda: pack(dense, key, kept=0.1, implementation=name),
    lambda: masked_mix(dense, packed, key, kept=0.1, implementation=name),
    lambda: packed_step(
      dense,
      dense,
      init(dense, kept=0.1),
      key,
      count=1,
      learning_rate=0.1,
      kept=0.1,
      implementation=name,
    ),
  ]
  for call in calls:
    with pytest.raises(NotImplementedError, match=f"{name}.*{reason}"):
      call()


@on_cpu
def test_none_falls_back_to_xla():
  assert dispatch.choose(None) == "xla"


def test_a_wrong_name_is_quoted():
  with pytest.raises(ValueError, match="'cuda'"):
    dispatch.choose("cuda")  # pyright: ignore[reportArgumentType]


class _Device:
  def __init__(self, platform, kind, capability=None):
    self.platform, self.device_kind = platform, kind
    if capability is not None:
      self.compute_capability = capability


@pytest.mark.parametrize(
  ("device", "mosaic", "triton"),
  [
    (_Device("cpu", "cpu"), "Hopper", "Ampere"),
    (_Device("tpu", "TPU v5e"), "Hopper", "Ampere"),
    (_Device("gpu", "Tesla V100", "7.0"), "Hopper.*7.0", "Ampere.*7.0"),
    (_Device("gpu", "NVIDIA A100", "8.0"), "Hopper.*8.0", None),
    (_Device("gpu", "RTX 4090", "8.9"), "Hopper.*8.9", None),
    (_Device("gpu", "NVIDIA H100", "9.0"), None, None),
    (_Device("gpu", "NVIDIA B200", "10.0"), None, None),
    (_Device("gpu", "AMD MI250", "gfx90a"), "not NVIDIA", "not NVIDIA"),
  ],
)
def test_devices(monkeypatch, device, mosaic, triton):
  monkeypatch.setattr(jax, "local_devices", lambda: [device])
  monkeypatch.setattr(dispatch, "_triton_obstacle", lambda: None)
  reasons: dict[dispatch.Implementation, str | None]
  reasons = {"mosaic_gpu": mosaic, "triton": triton}
  for name, reason in reasons.items():
    if reason is None:
      assert dispatch.obstacle(name) is None
    else:
      with pytest.raises(NotImplementedError, match=reason):
        dispatch.choose(name)


def test_jax_triton_versions():
  mismatch = dispatch.triton_mismatch
  assert mismatch("0.4.1", "0.11.2") is None
  assert "0.4.1 breaks on jax 0.12.0" in str(mismatch("0.4.1", "0.12.0"))
  assert "0.4.1 breaks on jax 0.12.0" in str(mismatch("0.4.1", "0.12.0.1"))
  assert "at least 0.4.1" in str(mismatch("0.3.2", "0.11.2"))
  assert mismatch("0.4.2", "0.12.0") is None


def test_a_jaxlib_without_mosaic_gpu_has_xla():
  """As on macOS and Windows, where importing it fails."""
  script = """
import sys
sys.modules["jax.experimental.pallas.mosaic_gpu"] = None
import jax, optax
import gmixout_jax as gx

params = jax.numpy.ones((4, 40))
tx = gx.gmixout(optax.sgd(0.1), target=lambda path, leaf: True, key=0)
updates, _ = tx.update(params, tx.init(params), params)
print(jax.numpy.count_nonzero(updates))
"""
  done = subprocess.run(
    [sys.executable, "-c", script], capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout == "16\n"
