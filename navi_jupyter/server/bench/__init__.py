"""The bench: a user's server lends its kernels, notebooks and files to ``navi hub`` over a link."""
