"""A train step of dense Mixout in PyTorch, written for comparison only.

  python experiments/bench/mixout_in_pytorch.py 8 96 11

prints the median seconds of full fine-tuning and of Mixout as one JSON object
(batch size, pixels and rounds as given). It needs PyTorch and nothing of this
project, so it also runs under a Python that cannot install the rest.

Mixout here is what its public PyTorch layers do: every linear layer of the
blocks draws a dense mask at each forward pass and computes with
W = A + M ⊙ (V − A) / s, so weights, anchor, gradient and both moments of AdamW
are dense, and every mask is a pass over all weights.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import time

KEPT = 0.1


def timed_by(
  python: pathlib.Path | None, batch_size: int, image_size: int, repeats: int
) -> dict[str, float] | None:
  """Runs this file under a Python that has PyTorch.

  Args:
    python: The interpreter; None means this one.
    batch_size: Images.
    image_size: Side in pixels.
    repeats: Timed rounds.

  Returns:
    Median seconds of "full" and "mixout", or None without PyTorch.

  Raises:
    ValueError: If an interpreter is named and lacks PyTorch.
  """
  interpreter = str(python or sys.executable)
  has_torch = subprocess.run(
    [interpreter, "-c", "import torch"], capture_output=True, check=False
  )
  if has_torch.returncode:
    if python is None:
      return None
    raise ValueError(f"pytorch={interpreter} cannot import torch.")
  sizes = [str(n) for n in (batch_size, image_size, repeats)]
  done = subprocess.run(
    [interpreter, __file__, *sizes], capture_output=True, check=True, text=True
  )
  return json.loads(done.stdout)


def measure(batch_size: int, image_size: int, repeats: int) -> dict[str, float]:
  """Median seconds of both train steps, which take turns."""
  import torch  # pyright: ignore[reportMissingImports]
  from torch import nn  # pyright: ignore[reportMissingImports]
  from torch.nn import functional  # pyright: ignore[reportMissingImports]

  torch.manual_seed(0)
  width, depth, heads, hidden, patch = 768, 12, 12, 3072, 16
  tokens = 1 + (image_size // patch) ** 2

  class MixLinear(nn.Linear):
    def __init__(self, *sizes: int):
      super().__init__(*sizes)
      self.anchor = self.weight.detach().clone()

    def forward(self, x):
      mask = torch.bernoulli(torch.full_like(self.weight, KEPT))
      residual = mask * (self.weight - self.anchor) / KEPT
      return functional.linear(x, self.anchor + residual, self.bias)

  class Block(nn.Module):
    def __init__(self, linear):
      super().__init__()
      self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
      self.query, self.key, self.value, self.out = (
        linear(width, width) for _ in range(4)
      )
      self.fc1, self.fc2 = linear(width, hidden), linear(hidden, width)

    def forward(self, x):
      y = self.norm1(x)
      split = lambda z: z.unflatten(-1, (heads, -1)).transpose(1, 2)
      y = functional.scaled_dot_product_attention(
        split(self.query(y)), split(self.key(y)), split(self.value(y))
      )
      x = x + self.out(y.transpose(1, 2).flatten(-2))
      return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))

  class ViT(nn.Module):
    def __init__(self, linear):
      super().__init__()
      self.patches = nn.Conv2d(3, width, patch, stride=patch)
      self.first = nn.Parameter(torch.zeros(1, 1, width))
      self.positions = nn.Parameter(torch.zeros(1, tokens, width))
      self.blocks = nn.Sequential(*(Block(linear) for _ in range(depth)))
      self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, images):
      x = self.patches(images).flatten(2).transpose(1, 2)
      x = torch.cat([self.first.expand(len(x), -1, -1), x], 1) + self.positions
      return self.head(self.norm(self.blocks(x)[:, 0]))

  images = torch.ones(batch_size, 3, image_size, image_size)
  labels = torch.ones(batch_size, dtype=torch.long)
  models = {"full": ViT(nn.Linear), "mixout": ViT(MixLinear)}
  optimizers = {
    name: torch.optim.AdamW(model.parameters(), 1e-4)
    for name, model in models.items()
  }
  seconds: dict[str, list[float]] = {name: [] for name in models}
  for turn in range(repeats + 1):
    for name, model in models.items():
      start = time.perf_counter()
      optimizers[name].zero_grad()
      functional.cross_entropy(model(images), labels).backward()
      optimizers[name].step()
      if turn > 0:
        seconds[name].append(time.perf_counter() - start)
  return {name: statistics.median(taken) for name, taken in seconds.items()}


if __name__ == "__main__":
  print(json.dumps(measure(*map(int, sys.argv[1:]))))
