"""Reading safetensors into a model, checked as a whole, and writing them."""

import json
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx

from gmixout_jax.checkpoint.files import CheckpointError, replacing
from gmixout_jax.clip.names import NameMap, Shape
from gmixout_jax.clip.vision import resize_positions

# Of JSON that is damaged, or something else than was expected.
_NOT_WHAT_IT_SHOULD_BE = (
  *(ValueError, LookupError, TypeError, AttributeError),
  RecursionError,  # nested too deep
)

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


class Files:
  """The tensors of one or more safetensors files, read when asked for.

  Assigning to a name puts another value in place of the file's.

  Attributes:
    source: The files' names, for messages.
    shapes: The shape of every tensor.
    metadata: What the files note beside their tensors.
  """

  def __init__(self, paths: Iterable[pathlib.Path]):
    paths = list(paths)
    self._files: dict[str, Any] = {}
    self._assigned: dict[str, np.ndarray] = {}
    self.shapes: dict[str, Shape] = {}
    self.metadata: dict[str, str] = {}
    self.source = ", ".join(str(path) for path in paths)
    for path in paths:
      file = _open(path)
      self.metadata |= file.metadata() or {}
      for name in file.keys():  # noqa: SIM118 (not a mapping)
        self.shapes[name] = tuple(file.get_slice(name).get_shape())
        self._files[name] = file

  def __getitem__(self, name: str) -> np.ndarray:
    if name in self._assigned:
      return self._assigned[name]
    try:
      found = self._files[name].get_tensor(name)
    except (TypeError, ValueError, safetensors.SafetensorError) as error:
      raise CheckpointError(
        f"{self.source}: {name} is of a type that NumPy has no name for:"
        f" {error}."
      ) from None
    if not jnp.issubdtype(found.dtype, jnp.floating):
      raise CheckpointError(
        f"{self.source}: {name} must hold floats, got {found.dtype}."
      )
    if not np.isfinite(found).all():
      number = int(np.size(found) - np.count_nonzero(np.isfinite(found)))
      raise CheckpointError(
        f"{self.source}: {name} holds {number} numbers that are not finite, of"
        f" {found.size}."
      )
    return found

  def __setitem__(self, name: str, value: np.ndarray):
    self._assigned[name] = value
    self.shapes[name] = value.shape


def _open(path: pathlib.Path) -> Any:
  if path.suffix in _PICKLES:
    raise CheckpointError(
      f"{path} is a pickle, which can run code when it is read. Where PyTorch"
      " is installed two lines convert one that you trust:\n"
      "  import torch, safetensors.torch as st\n"
      "  st.save_file({k: v.contiguous() for k, v in"
      f" torch.load({str(path)!r}, 'cpu', weights_only=True).items()}},"
      f" {str(path.with_name('model.safetensors'))!r})"
    )
  if not path.is_file():
    is_folder = ", but a folder, which clip.load reads" if path.is_dir() else ""
    raise FileNotFoundError(f"There is no file {path}{is_folder}.")
  try:
    return safetensors.safe_open(path, framework="numpy")
  except safetensors.SafetensorError as error:
    raise CheckpointError(
      f"{path} is not a safetensors file, or is cut short: {error}."
    ) from None


def find(
  directory: pathlib.Path, name: str = "model.safetensors"
) -> list[pathlib.Path]:
  """The weights of a folder, in one file or in shards.

  Args:
    directory: The folder.
    name: Of the file; shards have an index beside it.

  Raises:
    FileNotFoundError: The folder holds no weights.
    CheckpointError: It holds only pickles, or the index is broken.
  """
  single, index = directory / name, directory / f"{name}.index.json"
  if single.is_file():
    return [single]
  if index.is_file():
    try:
      shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
      if any(pathlib.PurePath(shard).name != shard for shard in shards):
        raise ValueError(f"shards must lie beside it, got {shards}")
      if not shards:
        raise ValueError("it names no shards")
      return [directory / shard for shard in shards]
    except _NOT_WHAT_IT_SHOULD_BE as error:
      raise CheckpointError(f"{index} is not an index: {error!r}.") from None
  for path in sorted(directory.glob("*")):
    if path.suffix in _PICKLES:
      _open(path)
  raise FileNotFoundError(f"There is no {name} in {directory}.")


def interpolate(
  tensors: Files, name: str, *, grid: int, prefix: int = 1
) -> None:
  """Puts position embeddings of another grid in place of the file's.

  Args:
    tensors: The tensors.
    name: Of the position embeddings.
    grid: Patches along a side.
    prefix: Other tokens that have positions; they come first.

  Raises:
    CheckpointError: The file's are no square of patches after these.
  """
  if name not in tensors.shapes:
    return
  table = tensors[name].astype(np.float32)
  try:
    resized = resize_positions(
      table.reshape(table.shape[-2:]), grid, prefix=prefix
    )
  except ValueError as error:
    raise CheckpointError(
      f"{tensors.source}: {name} is {list(table.shape)}: {error}"
    ) from None
  tensors[name] = np.asarray(resized).reshape(*table.shape[:-2], *resized.shape)


def replace_head(
  tensors: Files, name: str, num_classes: int, width: int
) -> tuple[str, ...]:
  """Puts a head of zeros in place of the file's, or none.

  Args:
    tensors: The tensors.
    name: Of the head, without ".weight" and ".bias".
    num_classes: Outputs; 0 for no head.
    width: Inputs.

  Returns:
    Tensors to pass over: those of a head that is to be none.
  """
  weight, bias = f"{name}.weight", f"{name}.bias"
  if not num_classes:
    return weight, bias
  zeros = np.zeros((num_classes, width), np.float32)
  tensors[weight], tensors[bias] = zeros, zeros[:, 0]
  return ()


def refuse_prefix(tensors: Files, name: str) -> None:
  """Refuses files whose names begin with what wrapped the model.

  DataParallel, torch.compile, Lightning and training code leave such prefixes.

  Args:
    tensors: The tensors.
    name: Of one that must be there.

  Raises:
    CheckpointError: It is there under a prefix, which is named.
  """
  for found in sorted(tensors.shapes):
    prefix = found.removesuffix(name)
    if prefix not in ("", found) and prefix.endswith("."):
      raise CheckpointError(
        f"{tensors.source} has the prefix {prefix!r}, as in {found}, of"
        " something that wrapped the model when it was saved: save it again"
        f" with names that begin after {prefix!r}."
      )


def parameters(model: nnx.Module) -> dict[str, nnx.Variable]:
  """A model's parameters by their path, joined by "/"."""
  state = nnx.to_flat_state(nnx.state(model, nnx.Param))
  return {"/".join(map(str, path)): leaf for path, leaf in state}


def shaped[Model: nnx.Module](
  make: Callable[[], Model], tensors: Files, *depths: int
) -> Model:
  """A model of shapes alone: no weight is drawn only to be thrown away.

  Args:
    make: Makes the model.
    tensors: What is to fill it.
    *depths: Blocks of its towers.

  Raises:
    CheckpointError: If there are fewer tensors than blocks: making as many
      could take for ever.
  """
  if sum(depths) > len(tensors.shapes):
    raise CheckpointError(
      f"{tensors.source} holds {len(tensors.shapes)} tensors, and the model"
      f" that they are for has {sum(depths)} blocks."
    )
  return nnx.eval_shape(make)


def fill[Model: nnx.Module](
  abstract: Model,
  tensors: Files,
  names: NameMap,
  *,
  ignore: Iterable[str] = (),
) -> Model:
  """Fills a model's parameters from a file.

  Args:
    abstract: The model, from `shaped`.
    tensors: The tensors.
    names: Where each parameter lives among them.
    ignore: Tensors that the model may do without.

  Returns:
    The model with its parameters, in the types of `abstract`.

  Raises:
    CheckpointError: Tensors are missing, not known to the model, or of
      another shape; all of them are listed.
  """
  leaves = parameters(abstract)
  sources = {path: names(path, leaf.shape) for path, leaf in leaves.items()}
  wanted = {
    source.name: source.file_shape(leaves[path].shape)
    for path, source in sources.items()
  }
  found = {k: v for k, v in tensors.shapes.items() if k not in set(ignore)}
  faults = [f"missing: {k} {list(wanted[k])}" for k in wanted.keys() - found]
  faults += [f"extra: {k} {list(found[k])}" for k in found.keys() - wanted]
  faults += [
    f"misshapen: {k} is {list(found[k])}, needs {list(wanted[k])}"
    for k in wanted.keys() & found
    if wanted[k] != found[k]
  ]
  if faults:
    lines = "\n  ".join(sorted(faults))
    raise CheckpointError(
      f"{tensors.source} does not fit the model:\n  {lines}"
    )
  graphdef, state = nnx.split(abstract)
  flat = [
    (
      path,
      leaf.replace(_read(tensors, sources["/".join(map(str, path))], leaf)),
    )
    for path, leaf in nnx.to_flat_state(state)
  ]
  return nnx.merge(graphdef, nnx.from_flat_state(flat))


def _read(tensors, source, leaf):
  return jnp.asarray(source.read(tensors[source.name]), leaf.dtype)


def collect(
  model: nnx.Module, names: NameMap, dtype: Any = None
) -> dict[str, np.ndarray]:
  """Inverse of `fill`: the tensors of a file, from a model.

  Args:
    model: The model.
    names: Where each parameter lives.
    dtype: The type to store, or None for that of each parameter.

  Returns:
    The tensors by name.
  """
  tensors: dict[str, Any] = {}
  for path, leaf in parameters(model).items():
    source = names(path, leaf.shape)
    value = np.asarray(leaf[...])
    value = source.write(value if dtype is None else value.astype(dtype))
    if source.part is None:
      tensors[source.name] = value
    else:
      tensors.setdefault(source.name, {})[source.part[0]] = value
  for name, value in tensors.items():
    if isinstance(value, dict):
      value = np.concatenate([value[i] for i in sorted(value)])
    # safetensors writes the buffer as it lies, whatever the strides say.
    tensors[name] = np.ascontiguousarray(value).reshape(value.shape)
  return tensors


def save(
  tensors: Mapping[str, np.ndarray],
  path: pathlib.Path,
  metadata: Mapping[str, str] | None = None,
) -> None:
  """Writes a safetensors file, whole or not at all.

  Args:
    tensors: By name.
    path: The file.
    metadata: What to note beside them.
  """
  with replacing(path) as temporary:
    # PyTorch's loaders refuse files that do not say this.
    safetensors.numpy.save_file(
      dict(tensors), temporary, metadata={"format": "pt"} | dict(metadata or {})
    )
    _sort_metadata(temporary)


def _sort_metadata(path: pathlib.Path) -> None:
  """Puts a header in order: safetensors writes metadata in a random one.

  So equal models are equal files.
  """
  with open(path, "r+b") as file:
    size = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(size))
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False)
    ordered = text.encode().ljust(size)
    assert len(ordered) == size
    file.seek(8)
    file.write(ordered)
