"""The gallery: a few instances with the masks of all variants side by side, chosen after everything is scored."""
