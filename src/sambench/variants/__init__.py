"""The variants: one contract (base), one registry of cards (registry), one module a family."""
