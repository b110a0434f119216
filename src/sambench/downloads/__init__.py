"""Downloads: what there is to fetch, how it travels, how it is checked, where it lies."""
