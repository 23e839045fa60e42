"""`make gpu`: the GPU tests and the benches of a GPU, in eight minutes.

Needs JAX, Flax, Optax, Orbax, safetensors, NumPy, jaxtyping, Chex and pytest,
and nothing else that this project is developed with.
"""
