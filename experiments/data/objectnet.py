"""ObjectNet: 313 classes of objects, of which 113 are ImageNet's too.

  <root>/images/<folder>/<image>.png
  <root>/mappings/folder_to_objectnet_label.json
  <root>/mappings/objectnet_to_imagenet_1k.json
  <root>/mappings/pytorch_to_imagenet_2012_id.json
  <root>/mappings/imagenet_to_label_2012_v2

as the archive unpacks. Which classes overlap is read from its mappings, not
known here. Several of ImageNet's classes may be one of ObjectNet's: the highest
of their logits then speaks for it (`experiments.metrics.select`). The
files have a red frame of 2 pixels, which is cut off.

References:
  Barbu et al., 2019, ObjectNet: A large-scale bias-controlled dataset.
"""

import dataclasses
import json
import os
import pathlib
from collections import Counter
from typing import Any

from experiments.data import folders, imagenet
from experiments.data.damage import parsing
from experiments.data.decode import View
from experiments.data.images import Files, ImageSet

FRAME = 2  # pixels

_LAYOUT = "<root>/images/<folder>/<image> and <root>/mappings/*.json"


def open_images(
  root: str | os.PathLike[str],
  *,
  view: View = imagenet.VIEW,
  mappings: str | os.PathLike[str] | None = None,
) -> ImageSet:
  """The images of the classes that ImageNet has too.

  Args:
    root: The unpacked archive.
    view: What to see of every image; the frame is cut off besides.
    mappings: The folder of the four files, if it is not ``<root>/mappings``.

  Returns:
    The images; ``outputs`` names the head's outputs of every class.

  Raises:
    FileNotFoundError: If a folder or a mapping is missing.
    ValueError: If the mappings contradict each other; it names the file.
  """
  root = pathlib.Path(root)
  outputs = overlap(mappings or root / "mappings")
  left_out: folders.LeftOut = Counter()
  found = folders.classes(root / "images", left_out, layout=_LAYOUT)
  if missing := sorted(outputs.keys() - found.keys()):
    raise FileNotFoundError(
      f"no images in {root / 'images' / missing[0]}, one of {len(missing)}"
      f" missing folders of the {len(outputs)} that the mappings name."
    )
  names = sorted(outputs)
  return ImageSet.of(
    Files(
      tuple(str(file) for name in names for file in found[name]),
      dataclasses.replace(view, border=view.border + FRAME),
    ),
    [label for label, name in enumerate(names) for _ in found[name]],
    names,
    outputs=[outputs[name] for name in names],
    left_out=folders.notes(root / "images", left_out),
  )


def overlap(mappings: str | os.PathLike[str]) -> dict[str, tuple[int, ...]]:
  """ObjectNet folder -> outputs of an ImageNet head that mean it."""
  with parsing(mappings):
    return _overlap(pathlib.Path(mappings))


def _overlap(mappings: pathlib.Path) -> dict[str, tuple[int, ...]]:
  label_of_folder = _json(mappings / "folder_to_objectnet_label.json")
  imagenet_names = _json(mappings / "objectnet_to_imagenet_1k.json")
  id_of_output = _json(mappings / "pytorch_to_imagenet_2012_id.json")
  lines = _text(mappings / "imagenet_to_label_2012_v2").splitlines()
  try:
    output_of_id = {int(value): int(key) for key, value in id_of_output.items()}
  except ValueError as error:
    raise ValueError(
      f"{mappings / 'pytorch_to_imagenet_2012_id.json'}: {error}."
    ) from None
  output_of_name = {
    line.strip(): output_of_id[number]
    for number, line in enumerate(lines)
    if number in output_of_id
  }
  folder_of_label = {value: key for key, value in label_of_folder.items()}
  found = {}
  for label, names in imagenet_names.items():
    if label not in folder_of_label:
      raise ValueError(
        f"{mappings / 'objectnet_to_imagenet_1k.json'} has {label!r}, which"
        " folder_to_objectnet_label.json lacks."
      )
    outputs = []
    for name in names.split("; "):
      if name not in output_of_name:
        raise ValueError(
          f"{mappings / 'objectnet_to_imagenet_1k.json'} has {name!r}, which"
          " imagenet_to_label_2012_v2 lacks."
        )
      outputs.append(output_of_name[name])
    found[folder_of_label[label]] = tuple(outputs)
  return found


def _text(path: pathlib.Path) -> str:
  if not path.is_file():
    raise FileNotFoundError(f"no {path}: expected {_LAYOUT}.")
  with parsing(path):
    return path.read_text(encoding="utf-8")


def _json(path: pathlib.Path) -> dict[str, Any]:
  try:
    return json.loads(_text(path))
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{path} is not JSON: {error!r}.") from error
