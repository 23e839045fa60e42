"""Whether processes of which only the number is known are still there."""

import pathlib
import time


def has_ended(pid):
  """Whether a process is gone, or is within some seconds."""
  stat = pathlib.Path(f"/proc/{pid}/stat")
  for _ in range(100):
    try:
      state = stat.read_text().rsplit(")")[-1].split()[0]
    except FileNotFoundError:
      return True
    if state == "Z":  # nobody has asked for its status yet
      return True
    time.sleep(0.1)
  return False
