"""One lane, one entry: gather and scatter for Mosaic GPU kernels.

Mosaic GPU loads and stores rectangles; it has no operation for addresses that
differ from thread to thread. The entries of a random mask need just that, so
`Lanes` spells it out: a thread of a warpgroup loads or stores one element at
a time at a position of its own. Neighbouring lanes hold neighbouring slots,
so that a warp touches each 32-byte sector once.

Positions past the end read zero and write nowhere. That takes care of leaves
that do not fill their last block.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.mosaic import gpu as mgpu
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import arith, memref, scf, vector

NOWHERE = np.uint32(2**32 - 1)
WARPGROUP = 128


@dataclasses.dataclass(frozen=True)
class Lanes:
  """A block of lanes.

  Attributes:
    size: How many, a multiple of 128; a thread has ``size / 128`` of them.
    interpret: Whether the kernel is interpreted. The interpreter knows no
      inlined code, so it gets the same gather and scatter as array operations.
  """

  size: int
  interpret: bool

  @property
  def layout(self):
    """Lane i belongs to thread ``i mod 128``."""
    return plgpu.Layout.WG_STRIDED((self.size,), vec_size=1)

  def iota(self) -> jax.Array:
    """The lanes' numbers, uint32 ``[size]``."""
    return plgpu.broadcasted_iota(
      jnp.uint32, (self.size,), 0, layout=self.layout
    )

  def load(self, ref, positions: jax.Array) -> jax.Array:
    """Reads ``ref[positions]``, zero past its end.

    Args:
      ref: One-dimensional reference in global memory.
      positions: uint32 ``[size]``.
    """
    (length,) = ref.shape
    if self.interpret:
      inside = positions < np.uint32(length)
      values = ref[...][jnp.where(inside, positions, 0).astype(jnp.int32)]
      return jnp.where(inside, values, jnp.zeros((), ref.dtype))

    @plgpu.inline_mgpu(
      arg_types=(plgpu.RefType(), self.layout),
      return_type=plgpu.ShapeDtypeStruct((self.size,), ref.dtype, self.layout),
    )
    def gather(ctx, ref, positions):
      del ctx
      element = ir.MemRefType(ref.type).element_type
      zero = arith.constant(element, ir.FloatAttr.get(element, 0.0))
      registers = np.empty(positions.registers.shape, dtype=object)
      for i, register in np.ndenumerate(positions.registers):
        index, inside = _index(register, length)
        safe = arith.select(inside, index, mgpu.c(0, index.type))
        value = arith.select(inside, memref.load(ref, [safe]), zero)
        registers[i] = vector.broadcast(ir.VectorType.get((1,), element), value)
      return mgpu.FragmentedArray(
        _registers=registers, _layout=positions.layout, _is_signed=None
      )

    return gather(ref, positions)  # pyright: ignore[reportCallIssue]

  def store(self, ref, positions: jax.Array, values: jax.Array) -> None:
    """Writes ``ref[positions] = values``, nothing past its end.

    What the block has stored before is overwritten, not raced with.

    Args:
      ref: One-dimensional reference in global memory.
      positions: uint32 ``[size]``, each position at most once.
      values: ``[size]`` of the dtype of `ref`.
    """
    (length,) = ref.shape
    if self.interpret:
      ref[...] = ref[...].at[positions].set(values, mode="drop")
      return

    @plgpu.inline_mgpu(arg_types=(plgpu.RefType(), self.layout, self.layout))
    def scatter(ctx, ref, positions, values):
      del ctx
      mgpu.warpgroup_barrier()
      for i, register in np.ndenumerate(positions.registers):
        index, inside = _index(register, length)
        branch = scf.IfOp(inside)
        with ir.InsertionPoint(branch.then_block):
          memref.store(_element(values.registers[i]), ref, [index])
          scf.yield_([])

    scatter(ref, positions, values)  # pyright: ignore[reportCallIssue]


def _index(register: ir.Value, length: int) -> tuple[ir.Value, ir.Value]:
  """A lane's position as an index, and whether it lies before `length`."""
  position = _element(register)
  inside = arith.cmpi(
    arith.CmpIPredicate.ult, position, mgpu.c(length, position.type)
  )
  return arith.index_castui(ir.IndexType.get(), position), inside


def _element(register: ir.Value) -> ir.Value:
  """The only element of a register."""
  return vector.extract(
    register,
    dynamic_position=[],
    static_position=ir.DenseI64ArrayAttr.get([0]),
  )
