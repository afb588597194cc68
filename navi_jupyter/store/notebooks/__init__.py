"""SQL about notebooks: what runs have changed in them."""
