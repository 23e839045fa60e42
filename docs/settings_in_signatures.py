"""Shows every setting, with its default, where a function takes ``**settings``.

An extension of griffe, which reads the code for mkdocstrings. Its own
`unpack_typeddict` shows the types of the settings, but an ellipsis for every
default, and drops what a docstring says of ``**settings``.
"""

from typing import Any

import griffe

_TYPES = "gmixout_jax._core.settings.MixSettings"
_DEFAULTS = "gmixout_jax._core.settings.Settings"


class SettingsInSignatures(griffe.Extension):
  """As `settings.takes_settings` does for `help` and `inspect.signature`."""

  def on_function(self, *, func: griffe.Function, **kwargs: Any) -> None:
    """Called by griffe, with every function that it has read."""
    del kwargs
    handed_on = [
      parameter
      for parameter in func.parameters
      if str(parameter.annotation) == "Unpack[MixSettings]"
    ]
    if not handed_on:
      return
    (parameter,) = handed_on
    if func.docstring and "**settings:" in func.docstring.value:
      _ = func.docstring.parsed  # while the signature has what it describes
    del func.parameters[parameter.name]
    types = func.modules_collection[_TYPES].attributes
    defaults = func.modules_collection[_DEFAULTS].attributes
    for name, attribute in types.items():
      func.parameters.add(
        griffe.Parameter(
          name,
          annotation=attribute.annotation,
          kind=griffe.ParameterKind.keyword_only,
          default=defaults[name].value,
        )
      )
