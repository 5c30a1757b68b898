"""lm-eval's tasks on the zoo's subjects."""
