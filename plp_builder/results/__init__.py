"""Where outcomes are told: one small module a sink."""
