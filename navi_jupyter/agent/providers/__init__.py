"""Model providers: which there are, their keys, models by name, errors, prices."""
