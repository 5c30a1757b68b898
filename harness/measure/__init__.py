"""Measuring: interleaved pairs, phases, memory, energy, counts, and what the machine can do at best."""
