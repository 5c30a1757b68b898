"""The lm-eval task of the objectives' training problems; its documents come from ``harness.toolkit.chain_sum``."""
