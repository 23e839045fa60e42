"""Tests the readers of ImageNet and its relatives."""

import os

import numpy as np
import pytest

from experiments.data import imagenet, long_tail, objectnet
from experiments.data.decode import View
from tests.experiments.data import disk

SMALL = View(8, fit="crop")


def values(images):
  """The brightness by which the images were written."""
  return [int(images[i]["image"].mean()) for i in range(len(images))]


def test_a_tree_is_labelled_by_sorted_ids(tmp_path):
  root = disk.tree(tmp_path, {disk.IDS[2]: 2, disk.IDS[0]: 1})
  images = imagenet.tree(root, view=SMALL)
  assert images.class_names == (disk.IDS[0], disk.IDS[2])
  assert images.labels.tolist() == [0, 1, 1]
  assert values(images) == [20, 0, 1]
  assert images.outputs is None


def test_a_subset_says_which_outputs_its_classes_are(tmp_path):
  train = disk.tree(tmp_path / "train", dict.fromkeys(disk.IDS, 1))
  subset = disk.tree(tmp_path / "imagenet-a", {i: 2 for i in disk.IDS[1::2]})
  head = imagenet.head_classes(train)
  assert head == disk.IDS
  images = imagenet.tree(subset, head=head, view=SMALL)
  assert images.outputs == ((1,), (3,))
  assert images.labels.tolist() == [0, 0, 1, 1]
  assert imagenet.tree(train, head=head, view=SMALL).outputs is None


def test_the_heads_classes_are_sorted_whatever_the_file(tmp_path):
  file = tmp_path / "LOC_synset_mapping.txt"
  file.write_text("".join(f"{i} some, words\n" for i in disk.IDS[::-1]) + "\n")
  assert imagenet.head_classes(file) == disk.IDS


def test_a_list_of_classes_is_checked(tmp_path):
  file = tmp_path / "classes.txt"
  file.write_text("n01440764\ntench\n")
  with pytest.raises(ValueError, match=r"classes\.txt has 'tench'"):
    imagenet.head_classes(file)
  file.write_text("n01440764\nn01440764\n")
  with pytest.raises(ValueError, match="twice"):
    imagenet.head_classes(file)
  with pytest.raises(FileNotFoundError, match="folder of class folders"):
    imagenet.head_classes(tmp_path / "nothing")


def test_a_wrong_tree_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match="<WordNet id>"):
    imagenet.tree(tmp_path)
  disk.tree(tmp_path, {"dog": 1})
  with pytest.raises(ValueError, match=r"dog is not named by a WordNet id"):
    imagenet.tree(tmp_path)
  disk.tree(tmp_path / "a", {disk.IDS[4]: 1})
  with pytest.raises(ValueError, match=f"{disk.IDS[4]}, which are not among"):
    imagenet.tree(tmp_path / "a", head=disk.IDS[:4])


def test_folders_of_v2_are_numbers_and_not_strings(tmp_path):
  # As strings, "10" comes before "2": label and place in the list differ.
  root = disk.tree(tmp_path, {str(c): 1 for c in range(12)})
  images = imagenet.v2(root, view=SMALL)
  assert images.labels.tolist() == list(range(12))
  assert values(images) == [20 * c for c in range(12)]
  head = [f"n{c:08d}" for c in range(20)]
  assert imagenet.v2(root, head=head, view=SMALL).class_names == tuple(head)
  with pytest.raises(ValueError, match="class 11; head has 5"):
    imagenet.v2(root, head=head[:5])
  disk.tree(root, {"07": 1})
  with pytest.raises(ValueError, match="07 is not named by a number"):
    imagenet.v2(root)


def test_flat_validation_images_take_their_labels_from_the_solution(tmp_path):
  for j in (1, 2, 3):
    disk.picture(tmp_path / "val" / f"ILSVRC2012_val_0000000{j}.JPEG", 30 * j)
  solution = tmp_path / "LOC_val_solution.csv"
  rows = {3: disk.IDS[1], 1: disk.IDS[4]}
  lines = [f"ILSVRC2012_val_0000000{j},{i} 1 2 3 4 \n" for j, i in rows.items()]
  solution.write_text("ImageId,PredictionString\n" + "".join(lines))
  read = imagenet.validation(
    tmp_path / "val", solution, head=disk.IDS, view=SMALL
  )
  assert read.labels.tolist() == [1, 4]
  assert values(read) == [90, 30]
  with pytest.raises(ValueError, match=f"{disk.IDS[4]}', which head lacks"):
    imagenet.validation(tmp_path / "val", solution, head=disk.IDS[:4])
  solution.write_text(f"ImageId,PredictionString\nnone,{disk.IDS[0]} 1\n")
  with pytest.raises(FileNotFoundError, match="no image none"):
    imagenet.validation(tmp_path / "val", solution, head=disk.IDS)
  solution.write_text("id,answer\n1,2\n")
  with pytest.raises(ValueError, match="ImageId and PredictionString"):
    imagenet.validation(tmp_path / "val", solution, head=disk.IDS)


def test_objectnet_is_what_imagenet_has_too_without_its_frame(tmp_path):
  images = objectnet.open_images(disk.objectnet(tmp_path), view=SMALL)
  assert images.class_names == ("clock", "mug")
  # Lines of the labels' file: digital 0, mug 1, analog 2; in the head's order
  # 0 -> 2, 1 -> 0, 2 -> 1, so analog is output 0, digital 1, mug 2.
  assert images.outputs == ((0, 1), (2,))
  assert values(images) == [0, 50]
  assert images[0]["image"].max() == 0  # no red is left
  assert images[1]["image"].max() == 50


def test_objectnet_names_what_is_missing_or_contradictory(tmp_path):
  root = disk.objectnet(tmp_path)
  (root / "images" / "mug" / "a.png").unlink()
  with pytest.raises(FileNotFoundError, match="images/mug"):
    objectnet.open_images(root)
  (root / "mappings" / "objectnet_to_imagenet_1k.json").write_text(
    '{"Alarm clock": "sundial"}'
  )
  with pytest.raises(ValueError, match="'sundial'"):
    objectnet.open_images(root)
  (root / "mappings" / "objectnet_to_imagenet_1k.json").write_text(
    '{"Sundial": "fish"}'
  )
  with pytest.raises(ValueError, match="'Sundial'"):
    objectnet.open_images(root)
  (root / "mappings" / "objectnet_to_imagenet_1k.json").write_text("{")
  with pytest.raises(ValueError, match=r"1k\.json is not JSON"):
    objectnet.open_images(root)
  (root / "mappings" / "imagenet_to_label_2012_v2").unlink()
  (root / "mappings" / "objectnet_to_imagenet_1k.json").write_text("{}")
  with pytest.raises(FileNotFoundError, match="imagenet_to_label_2012_v2"):
    objectnet.open_images(root)


def test_a_long_tailed_list_keeps_its_order_and_finds_sorted_copies(tmp_path):
  disk.tree(tmp_path / "train", {disk.IDS[0]: 3, disk.IDS[1]: 1})
  disk.picture(tmp_path / "val" / disk.IDS[1] / "ILSVRC2012_val_1.JPEG", 77)
  file = tmp_path / "ImageNet_LT_train.txt"
  lines = [
    f"train/{disk.IDS[1]}/0.JPEG 1",
    f"train/{disk.IDS[0]}/2.JPEG 0",
    "val/ILSVRC2012_val_1.JPEG 1",
  ]
  file.write_text("\n".join(lines) + "\n")
  images = long_tail.open_list(file, root=tmp_path, view=SMALL)
  assert images.labels.tolist() == [1, 0, 1]
  assert values(images) == [20, 2, 77]
  np.testing.assert_array_equal(images.counts(), [[1, 2]])


def test_a_wrong_list_is_named_with_its_line(tmp_path):
  file = tmp_path / "list.txt"
  with pytest.raises(FileNotFoundError, match="<path> <label>"):
    long_tail.open_list(file, root=tmp_path)
  file.write_text("")
  with pytest.raises(ValueError, match="no lines"):
    long_tail.open_list(file, root=tmp_path)
  file.write_text("a.JPEG one\n")
  with pytest.raises(ValueError, match=r"list\.txt:1: 'a\.JPEG one'"):
    long_tail.open_list(file, root=tmp_path)
  file.write_text("nowhere/a.JPEG 1\n")
  with pytest.raises(FileNotFoundError, match=r"list\.txt:1: no image"):
    long_tail.open_list(file, root=tmp_path)
  disk.picture(tmp_path / "a.JPEG", 1)
  file.write_text("a.JPEG 3\n")
  with pytest.raises(ValueError, match=r"a\.JPEG has label 3"):
    long_tail.open_list(file, root=tmp_path, class_names=["x", "y"])


def test_what_is_passed_over_is_said(tmp_path):
  root = disk.tree(tmp_path / "train", dict.fromkeys(disk.IDS, 1))
  assert imagenet.tree(root).left_out == ()
  os.mkfifo(root / disk.IDS[0] / "pipe.JPEG")
  (root / "n09999999").symlink_to("nowhere")
  left_out = (f"Left out of {root}: 2 names that are no regular file.",)
  assert imagenet.tree(root).left_out == left_out
  v2 = disk.tree(tmp_path / "v2", {"0": 1, "1": 1})
  os.mkfifo(v2 / "1" / "pipe.JPEG")
  left_out = (f"Left out of {v2}: 1 names that are no regular file.",)
  assert imagenet.v2(v2).left_out == left_out


def test_what_the_flat_validation_folder_holds_besides_is_said(tmp_path):
  for name in "ab":
    disk.picture(tmp_path / "val" / f"{name}.JPEG", 30)
  os.mkfifo(tmp_path / "val" / "c.JPEG")
  solution = tmp_path / "LOC_val_solution.csv"
  solution.write_text(f"ImageId,PredictionString\na,{disk.IDS[0]} 1\n")
  read = imagenet.validation(tmp_path / "val", solution, head=disk.IDS)
  assert read.left_out == (
    f"Left out of {tmp_path / 'val'}: 1 names that are no regular file, 1"
    " images that the solution does not name.",
  )
  for damaged in (b"ImageId,PredictionString\na, \n", b"\xff\xfe", b"a\n1,2"):
    solution.write_bytes(damaged)
    with pytest.raises(ValueError, match="LOC_val_solution"):
      imagenet.validation(tmp_path / "val", solution, head=disk.IDS)


def test_what_objectnet_holds_besides_is_said(tmp_path):
  root = disk.objectnet(tmp_path)
  os.mkfifo(root / "images" / "mug" / "b.png")
  (sentence,) = objectnet.open_images(root, view=SMALL).left_out
  assert "1 names that are no regular file" in sentence
