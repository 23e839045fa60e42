"""How a method trains: the loop and its step, faults, saving and resuming."""
